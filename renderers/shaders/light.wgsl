// What the shaders of the stress test share: the camera, the sky, and the way to the screen.

struct Camera {
    view_projection: mat4x4f,
    eye: vec4f,         // w: time in seconds
    right: vec4f,       // w: width in pixels
    up: vec4f,          // w: height in pixels
    forward: vec4f,     // w: distance of what is looked at
    key: vec4f,         // towards the lamps
    rim: vec4f,
    strip: vec4f,
}

@group(0) @binding(0) var<uniform> camera: Camera;
@group(0) @binding(1) var panorama: texture_2d<f32>;
@group(0) @binding(2) var panorama_sampler: sampler;

const DUSK = vec3f(0.016, 0.015, 0.042);

// The sky in a direction. The panorama is an octahedron, unfolded to a square: its middle is
// straight up, its corners are straight down. It holds square roots, which spends its 8 bits well
// and costs less to read than sRGB. Where it has not arrived yet its alpha is 0.
fn sky(direction: vec3f) -> vec3f {
    let flat = direction.xy / (abs(direction.x) + abs(direction.y) + abs(direction.z));
    let folded = (1.0 - abs(flat.yx)) * select(vec2f(-1.0), vec2f(1.0), flat >= vec2f(0.0));
    let place = 0.5 + 0.5 * select(folded, flat, direction.z >= 0.0);
    let texel = textureSampleLevel(panorama, panorama_sampler, place, 0.0);
    return mix(DUSK, texel.rgb * texel.rgb, texel.a);
}

// The sky as it is seen: with a glow behind the subject.
fn backdrop(direction: vec3f) -> vec3f {
    let center = max(dot(direction, camera.forward.xyz), 0.0);
    let glow = pow(center, 20.0) * vec3f(0.008, 0.011, 0.034) + pow(center, 70.0) * vec3f(0.030, 0.018, 0.050);
    return 0.8 * sky(direction) + glow;
}

// Darker corners, a filmic curve, and noise of less than a step against banding.
fn develop(light: vec3f, pixel: vec2f) -> vec3f {
    let place = pixel / vec2f(camera.right.w, camera.up.w) - 0.5;
    let exposed = light * (1.12 - 0.95 * dot(place, place));
    let curve = exposed * (2.51 * exposed + 0.03) / (exposed * (2.43 * exposed + 0.59) + 0.14);
    let grain = fract(52.9829189 * fract(dot(pixel, vec2f(0.06711056, 0.00583715)))) - 0.5;
    let root = sqrt(clamp(curve, vec3f(0.0), vec3f(1.0))) + grain / 255.0;
    return max(root, vec3f(0.0)) * root;
}
