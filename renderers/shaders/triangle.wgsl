struct Frame {
    rotation: vec2f,    // cosine and sine of the angle
    aspect: f32,        // width / height
    brightness: f32,
}

@group(0) @binding(0) var<uniform> frame: Frame;

struct Varying {
    @builtin(position) position: vec4f,
    @location(0) color: vec3f,
}

@vertex
fn vs_main(@location(0) position: vec2f, @location(1) color: vec3f) -> Varying {
    let turned = vec2f(
        position.x * frame.rotation.x - position.y * frame.rotation.y,
        position.x * frame.rotation.y + position.y * frame.rotation.x,
    );
    return Varying(vec4f(turned.x / frame.aspect, turned.y, 0.0, 1.0), color * frame.brightness);
}

@fragment
fn fs_main(in: Varying) -> @location(0) vec4f {
    return vec4f(in.color, 1.0);
}

@fragment
fn fs_encoded(in: Varying) -> @location(0) vec4f {
    return vec4f(encode_srgb(in.color), 1.0);
}
