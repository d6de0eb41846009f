// Many solids: an instance has a place, a size, a turn and a colour.

struct Vertex {
    @location(0) position: vec3f,
    @location(1) normal: vec3f,
    @location(2) position_scale: vec4f,
    @location(3) rotation: vec4f,
    @location(4) outward: vec3f,
    @location(5) color_metal: vec4f,
}

// Most faces are flat, so what depends on the normal alone is worked out once for each vertex.
struct Varying {
    @builtin(position) position: vec4f,
    @location(0) away: vec3f,       // from the eye
    @location(1) normal: vec3f,
    @location(2) matte: vec3f,      // light that the surface scatters
    @location(3) fog: vec4f,        // colour, and how much of it
    @location(4) gloss: vec2f,      // how much of what is mirrored arrives, and of the rim light
    @location(5) @interpolate(flat) albedo_metal: vec4f,
}

const KEY_COLOR = vec3f(3.3, 2.75, 2.2);
const RIM_COLOR = vec3f(0.75, 0.95, 1.7);

fn rotate(v: vec3f, q: vec4f) -> vec3f {
    return v + 2.0 * cross(q.xyz, cross(q.xyz, v) + q.w * v);
}

@vertex
fn vs_main(in: Vertex) -> Varying {
    let place = in.position_scale.xyz + in.position_scale.w * rotate(in.position, in.rotation);
    let n = rotate(in.normal, in.rotation);
    let albedo = pow(in.color_metal.rgb, vec3f(2.2));
    let metal = in.color_metal.a;

    // The stream shades itself: what faces its middle is dark, and its far side lies in shadow.
    let open = smoothstep(-0.85, 0.6, dot(n, in.outward));
    let lit = smoothstep(-0.45, 0.5, dot(in.outward, camera.key.xyz));
    let occlusion = mix(0.16, 1.0, open);

    let key_light = 0.55 * KEY_COLOR * max(dot(n, camera.key.xyz), 0.0) * lit;
    let ambient = 2.6 * sky(n) + vec3f(0.06, 0.055, 0.10) * (0.6 + 0.4 * n.z);
    let matte = albedo * (1.0 - 0.85 * metal) * (key_light + ambient) * occlusion;

    let away = place - camera.eye.xyz;
    let depth = length(away);
    let thickness = 0.19 * max(depth - camera.forward.w + 2.2, 0.0);
    let fog = vec4f(backdrop(away / depth), 1.0 - exp(-thickness * thickness));
    return Varying(
        camera.view_projection * vec4f(place, 1.0),
        away,
        n,
        matte,
        fog,
        vec2f(occlusion * mix(0.35, 1.0, lit), open),
        vec4f(albedo, metal),
    );
}

// What a solid mirrors: the sky, and two soft lamps of the studio.
fn mirrored(direction: vec3f) -> vec3f {
    let lamp = smoothstep(0.80, 0.97, dot(direction, camera.key.xyz));
    let strip = smoothstep(0.86, 0.98, dot(direction, camera.strip.xyz));
    return 2.2 * sky(direction) + lamp * vec3f(2.6, 2.2, 1.8) + strip * vec3f(0.35, 0.55, 1.0);
}

fn shade(in: Varying) -> vec3f {
    let albedo = in.albedo_metal.rgb;
    let metal = in.albedo_metal.a;
    let n = normalize(in.normal);
    let view = normalize(in.away);
    let grazing = 1.0 - clamp(-dot(n, view), 0.0, 1.0);
    let cubed = grazing * grazing * grazing;

    let base = mix(vec3f(0.045), albedo, metal);
    let fresnel = base + (1.0 - base) * cubed * grazing * grazing * mix(0.5, 1.0, metal);
    let mirror = fresnel * mirrored(reflect(view, n)) * in.gloss.x;
    let edge = cubed * smoothstep(-0.2, 0.7, dot(n, camera.rim.xyz)) * in.gloss.y;
    let light = in.matte + mirror + RIM_COLOR * edge * (0.35 + albedo);
    return mix(light, in.fog.rgb, in.fog.a);
}

@fragment
fn fs_main(in: Varying) -> @location(0) vec4f {
    return vec4f(develop(shade(in), in.position.xy), 1.0);
}

@fragment
fn fs_encoded(in: Varying) -> @location(0) vec4f {
    return vec4f(encode_srgb(develop(shade(in), in.position.xy)), 1.0);
}
