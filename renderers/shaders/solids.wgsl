// Many solids: an instance has a place, a size, a turn and a colour.

struct Vertex {
    @location(0) position: vec3f,
    @location(1) normal: vec3f,
    @location(2) position_scale: vec4f,
    @location(3) rotation: vec4f,
    @location(4) outward: vec3f,
    @location(5) color_metal: vec4f,
}

struct Varying {
    @builtin(position) position: vec4f,
    @location(0) place: vec3f,
    @location(1) normal: vec3f,
    @location(2) outward: vec3f,
    @location(3) @interpolate(flat) albedo_metal: vec4f,
}

fn rotate(v: vec3f, q: vec4f) -> vec3f {
    return v + 2.0 * cross(q.xyz, cross(q.xyz, v) + q.w * v);
}

@vertex
fn vs_main(in: Vertex) -> Varying {
    let place = in.position_scale.xyz + in.position_scale.w * rotate(in.position, in.rotation);
    let albedo = pow(in.color_metal.rgb, vec3f(2.2));
    return Varying(
        camera.view_projection * vec4f(place, 1.0),
        place,
        rotate(in.normal, in.rotation),
        in.outward,
        vec4f(albedo, in.color_metal.a),
    );
}

const KEY_COLOR = vec3f(3.3, 2.75, 2.2);
const RIM_COLOR = vec3f(0.75, 0.95, 1.7);

// A direction given in the camera's terms: right, up, towards the viewer.
fn studio(x: f32, y: f32, z: f32) -> vec3f {
    return normalize(
        x * normalize(camera.right.xyz) + y * normalize(camera.up.xyz) - z * camera.forward.xyz
    );
}

// What a solid mirrors: the sky, and two soft lamps of the studio.
fn mirrored(direction: vec3f, key: vec3f) -> vec3f {
    let lamp = smoothstep(0.80, 0.97, dot(direction, key));
    let strip = smoothstep(0.86, 0.98, dot(direction, studio(-0.9, 0.15, 0.35)));
    return 2.2 * sky(direction) + lamp * vec3f(2.6, 2.2, 1.8) + strip * vec3f(0.35, 0.55, 1.0);
}

fn shade(in: Varying) -> vec3f {
    let albedo = in.albedo_metal.rgb;
    let metal = in.albedo_metal.a;
    let n = normalize(in.normal);
    let away = in.place - camera.eye.xyz;
    let depth = length(away);
    let view = away / depth;
    let facing = clamp(-dot(n, view), 0.0, 1.0);
    let key = studio(0.55, 0.75, 0.45);
    let rim = studio(-0.6, 0.25, -0.75);

    // The stream shades itself: what faces its middle is dark, and its far side lies in shadow.
    let open = smoothstep(-0.85, 0.6, dot(n, in.outward));
    let lit = smoothstep(-0.45, 0.5, dot(in.outward, key));
    let occlusion = mix(0.16, 1.0, open);

    let key_light = KEY_COLOR * max(dot(n, key), 0.0) * lit;
    let ambient = 2.6 * sky(n) + vec3f(0.06, 0.055, 0.10) * (0.6 + 0.4 * n.z);
    let diffuse = albedo * (1.0 - 0.85 * metal) * (key_light * 0.55 + ambient);

    let base = mix(vec3f(0.045), albedo, metal);
    let fresnel = base + (1.0 - base) * pow(1.0 - facing, 5.0) * mix(0.5, 1.0, metal);
    let mirror = fresnel * mirrored(reflect(view, n), key) * mix(0.35, 1.0, lit);

    let edge = pow(1.0 - facing, 3.0) * smoothstep(-0.2, 0.7, dot(n, rim));
    let light = (diffuse + mirror) * occlusion + RIM_COLOR * edge * (0.35 + albedo) * open;

    let fog = 1.0 - exp(-pow(max(depth - camera.forward.w + 2.2, 0.0) * 0.19, 2.0));
    return mix(light, backdrop(view), fog);
}

@fragment
fn fs_main(in: Varying) -> @location(0) vec4f {
    return vec4f(develop(shade(in), in.position.xy), 1.0);
}

@fragment
fn fs_encoded(in: Varying) -> @location(0) vec4f {
    return vec4f(encode_srgb(develop(shade(in), in.position.xy)), 1.0);
}
