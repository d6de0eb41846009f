// Reduces words to a digest that has to come out exact: whole numbers, and an order-free sum.

struct Digest {
    sum: atomic<u32>,           // of all words
    parity: atomic<u32>,        // exclusive or of all words
    weighted: atomic<u32>,      // of each word times its odd number: notices words that swapped
    count: atomic<u32>,
}

@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read_write> digest: Digest;

var<workgroup> part: Digest;

@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) id: vec3u,
    @builtin(local_invocation_index) local: u32,
    @builtin(num_workgroups) groups: vec3u,
) {
    // WGSL promises zeros here, but not every driver keeps the promise.
    if local == 0u {
        atomicStore(&part.sum, 0u);
        atomicStore(&part.parity, 0u);
        atomicStore(&part.weighted, 0u);
        atomicStore(&part.count, 0u);
    }
    workgroupBarrier();

    var sum = 0u;
    var parity = 0u;
    var weighted = 0u;
    var count = 0u;
    for (var i = id.x; i < arrayLength(&words); i += 64u * groups.x) {
        sum += words[i];
        parity ^= words[i];
        weighted += words[i] * (2u * i + 1u);
        count += 1u;
    }
    atomicAdd(&part.sum, sum);
    atomicXor(&part.parity, parity);
    atomicAdd(&part.weighted, weighted);
    atomicAdd(&part.count, count);
    workgroupBarrier();
    if local == 0u {
        atomicAdd(&digest.sum, atomicLoad(&part.sum));
        atomicXor(&digest.parity, atomicLoad(&part.parity));
        atomicAdd(&digest.weighted, atomicLoad(&part.weighted));
        atomicAdd(&digest.count, atomicLoad(&part.count));
    }
}
