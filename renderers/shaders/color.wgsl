// Shaders compute linear light. A target with an sRGB format encodes it itself; for any other
// 8-bit target the fragment entry point `fs_encoded` does so.

fn encode_srgb(linear: vec3f) -> vec3f {
    let low = linear * 12.92;
    let high = 1.055 * pow(max(linear, vec3f(0.0031308)), vec3f(1.0 / 2.4)) - 0.055;
    return select(high, low, linear <= vec3f(0.0031308));
}
