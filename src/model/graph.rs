//! A graph of a manifest in, its bytes out, if they are the ones that the manifest names.

use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};

use super::error::ModelError;
use super::manifest::{Graph, Manifest};
use super::verify::{Difference, Disagreement};

/// An ONNX file is one protobuf message, which ends at 2 GiB.
const MAX_BYTES: u64 = 1 << 31;

/// Reads a graph whole and holds its digest against the manifest. What was digested is what ONNX Runtime is given: nothing is read twice.
///
/// # Errors
/// The file cannot be read, is too large, or is another one.
pub(super) fn read(manifest: &Manifest, graph: &Graph) -> Result<Vec<u8>, ModelError> {
    let path = manifest.path_of(graph);
    let unreadable = |source| ModelError::Unreadable {
        path: path.clone(),
        source,
    };
    let file = File::open(&path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        let difference = Difference::new(
            "size",
            "at most 2 GiB, what an ONNX file may have",
            format!("{length} bytes"),
        );
        return Err(Disagreement::new(&graph.file, vec![difference]).into());
    }
    verify_digest(graph, &hex(&Sha256::digest(&bytes)))?;
    Ok(bytes)
}

/// Holds the digest of a file against the manifest.
///
/// # Errors
/// It is another file.
pub(super) fn verify_digest(graph: &Graph, digest: &str) -> Result<(), Disagreement> {
    if graph.sha256 == digest {
        return Ok(());
    }
    Err(Disagreement::new(
        &graph.file,
        vec![Difference::new("sha256", &graph.sha256, digest)],
    ))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
