//! What the network made of a series, as bytes that another attempt at the same series can go on from, so that nothing lost afterwards costs the network's work again.
//!
//! The bytes name what they were made of by a digest and end with a checksum; whatever is not sound, or of another input or network, is not used.

use sha2::{Digest, Sha256};

use super::{PIPELINE_REVISION, Predicted, Prepared, Tools};
use crate::model::Provider;
use crate::volume::Image;

/// Begins the bytes, and names their layout.
const MAGIC: &[u8; 8] = b"hilumP\x00\x01";
/// Bytes of a SHA-256.
const DIGEST: usize = 32;
/// Magic, key, windows run, windows skipped.
const HEAD: usize = MAGIC.len() + DIGEST + 8 + 8;
/// Values that are hashed at once.
const AT_ONCE: usize = 4096;

/// What a prediction is made of: the network's input (its grid and every voxel), the weights, the parameters, the graph, what runs it, and the pipeline's revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictionKey {
    digest: [u8; DIGEST],
    /// Voxels of the input, and so of the answer.
    voxels: usize,
}

impl PredictionKey {
    /// The key of a prepared series; `None` where its input was taken already.
    #[must_use]
    pub fn of(prepared: &Prepared, provider: &Provider, tools: &Tools) -> Option<PredictionKey> {
        let input = prepared.input()?;
        let manifest = tools.manifest;
        let mut digest = Sha256::new();
        let mut text = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        text(&manifest.weights_sha256);
        text(&manifest.parameters().digest());
        text(&provider.name);
        text(&provider.graph);
        text(&provider.runtime_version);
        digest.update(PIPELINE_REVISION.to_le_bytes());
        for length in input.grid.shape {
            digest.update((length as u64).to_le_bytes());
        }
        let places = input
            .grid
            .axes
            .iter()
            .chain([&input.grid.origin, &input.grid.spacing_mm]);
        for number in places.flatten() {
            digest.update(number.to_le_bytes());
        }
        each_bytes(&input.values, |bytes| digest.update(bytes));
        Some(PredictionKey {
            digest: digest.finalize().into(),
            voxels: input.values.len(),
        })
    }

    /// Bytes that a prediction with this key is kept in: four for each voxel of the network's grid, and 88.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        HEAD + self.voxels * size_of::<f32>() + DIGEST
    }
}

impl Predicted {
    /// The bytes that [`resume`] goes on from.
    #[must_use]
    pub fn to_bytes(&self, key: &PredictionKey) -> Vec<u8> {
        encode(key, [self.windows_run, self.windows_skipped], &self.probability.values)
    }
}

/// Goes on from a prediction that was kept, without the network. Hands the series back where the bytes are not sound or have another key.
///
/// # Errors
/// The series, as it was.
pub fn resume(
    mut prepared: Box<Prepared>,
    key: &PredictionKey,
    kept: &[u8],
    tools: &Tools,
) -> Result<Predicted, Box<Prepared>> {
    let Some(([windows, skipped], values)) = decode(key, kept) else {
        return Err(prepared);
    };
    let grid = prepared.take_input().grid;
    tools.observer.windows(windows + skipped, windows + skipped);
    Ok(Predicted {
        prepared: *prepared,
        probability: Image { grid, values },
        windows_run: 0,
        windows_skipped: skipped,
        windows_reused: windows,
    })
}

fn encode(key: &PredictionKey, counts: [usize; 2], values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.kept_bytes());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&key.digest);
    for count in counts {
        bytes.extend_from_slice(&(count as u64).to_le_bytes());
    }
    each_bytes(values, |some| bytes.extend_from_slice(some));
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Windows run and skipped, and the values; `None` where a single bit is not as it was written for this key.
fn decode(key: &PredictionKey, bytes: &[u8]) -> Option<([usize; 2], Vec<f32>)> {
    let (content, checksum) = bytes.split_last_chunk::<DIGEST>()?;
    if bytes.len() != key.kept_bytes() || Sha256::digest(content).as_slice() != checksum {
        return None;
    }
    let (magic, rest) = content.split_first_chunk::<{ MAGIC.len() }>()?;
    let (digest, rest) = rest.split_first_chunk::<DIGEST>()?;
    let (run, rest) = rest.split_first_chunk::<8>()?;
    let (skipped, values) = rest.split_first_chunk::<8>()?;
    if magic != MAGIC || *digest != key.digest {
        return None;
    }
    let count = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
    let (values, _) = values.as_chunks::<{ size_of::<f32>() }>();
    let values = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    Some(([count(run)?, count(skipped)?], values))
}

/// Hands the little-endian bytes of values over, some at a time.
fn each_bytes(values: &[f32], mut take: impl FnMut(&[u8])) {
    let mut bytes = Vec::with_capacity(AT_ONCE * size_of::<f32>());
    for some in values.chunks(AT_ONCE) {
        bytes.clear();
        bytes.extend(some.iter().flat_map(|value| value.to_le_bytes()));
        take(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_prediction_is_used_whole_and_for_its_own_key_alone() {
        let key = PredictionKey {
            digest: [7; DIGEST],
            voxels: AT_ONCE + 3,
        };
        let values: Vec<f32> = (0..key.voxels).map(|at| at as f32 / 1e4).collect();
        let bytes = encode(&key, [30, 6], &values);
        assert_eq!(bytes.len(), key.kept_bytes());
        assert_eq!(decode(&key, &bytes), Some(([30, 6], values)));
        for at in [0, 20, 50, 100, bytes.len() - 1] {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            assert_eq!(decode(&key, &broken), None, "byte {at}");
        }
        for cut in [0, 31, 32, HEAD, bytes.len() - 1] {
            assert_eq!(decode(&key, &bytes[..cut]), None, "{cut} bytes");
        }
        let of_another_input = PredictionKey {
            digest: [8; DIGEST],
            ..key.clone()
        };
        assert_eq!(decode(&of_another_input, &bytes), None);
        let of_another_size = PredictionKey {
            voxels: key.voxels - 1,
            ..key
        };
        assert_eq!(decode(&of_another_size, &bytes), None);
    }
}
