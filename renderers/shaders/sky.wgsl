// One triangle that covers the picture, as far away as can be.

struct Varying {
    @builtin(position) position: vec4f,
    @location(0) direction: vec3f,
}

@vertex
fn vs_main(@builtin(vertex_index) index: u32) -> Varying {
    let corner = vec2f(f32((index << 1u) & 2u), f32(index & 2u)) * 2.0 - 1.0;
    let direction = camera.forward.xyz + corner.x * camera.right.xyz + corner.y * camera.up.xyz;
    return Varying(vec4f(corner, 1.0, 1.0), direction);
}

fn color(in: Varying) -> vec3f {
    return develop(backdrop(normalize(in.direction)), in.position.xy);
}

@fragment
fn fs_main(in: Varying) -> @location(0) vec4f {
    return vec4f(color(in), 1.0);
}

@fragment
fn fs_encoded(in: Varying) -> @location(0) vec4f {
    return vec4f(encode_srgb(color(in)), 1.0);
}
