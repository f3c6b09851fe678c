//! A manifest and the tensors that a graph really has in, the differences out.

use std::fmt;

use super::manifest::{Graph, Manifest};

/// A tensor of a graph as ONNX Runtime describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// Its name.
    pub name: String,
    /// Its element type, in lower case: `float32`.
    pub element: String,
    /// Its dimensions; `None` where the graph leaves one open.
    pub shape: Vec<Option<usize>>,
}

/// One difference between a manifest and a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs.
    pub what: String,
    /// What the manifest says.
    pub manifest: String,
    /// What the file is.
    pub file: String,
}

/// A file that is not what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The file's name.
    pub file: String,
    /// All differences found.
    pub differences: Vec<Difference>,
}

impl Manifest {
    /// Holds the tensors of a graph against the manifest: their names, element types and shapes. Dimensions that the graph leaves open agree with everything, and
    /// so does its batch.
    ///
    /// # Errors
    /// Every difference.
    pub fn verify(&self, graph: &Graph, inputs: &[TensorShape], outputs: &[TensorShape]) -> Result<(), Disagreement> {
        let mut differences = Vec::new();
        if inputs.len() != 1 {
            differences.push(Difference::new("number of inputs", "1", inputs.len().to_string()));
        }
        for (role, name, channels, tensors) in [
            ("input", &self.input.name, 1, inputs),
            ("output", &self.output.name, self.output.channels, outputs),
        ] {
            let Some(tensor) = tensors.iter().find(|tensor| tensor.name == *name) else {
                let names: Vec<_> = tensors.iter().map(|tensor| format!("\"{}\"", tensor.name)).collect();
                differences.push(Difference::new(
                    &format!("{role} name"),
                    format!("\"{name}\""),
                    names.join(", "),
                ));
                continue;
            };
            if tensor.element != "float32" {
                differences.push(Difference::new(
                    &format!("element type of \"{name}\""),
                    "float32",
                    &tensor.element,
                ));
            }
            let expected = self.tensor_shape(1, channels);
            let agrees = |(index, (have, want)): (usize, (&Option<usize>, &usize))| {
                index == 0 || have.is_none_or(|have| have == *want)
            };
            let same = tensor.shape.len() == 5 && tensor.shape.iter().zip(&expected).enumerate().all(agrees);
            if !same {
                let [_, channel, a, b, c] = expected;
                let expected = format!("[batch, {channel}, {a}, {b}, {c}]");
                differences.push(Difference::new(
                    &format!("shape of \"{name}\""),
                    expected,
                    dimensions(&tensor.shape),
                ));
            }
        }
        if differences.is_empty() {
            Ok(())
        } else {
            Err(Disagreement::new(&graph.file, differences))
        }
    }
}

impl Disagreement {
    pub(super) fn new(file: &str, differences: Vec<Difference>) -> Disagreement {
        Disagreement {
            file: file.to_owned(),
            differences,
        }
    }
}

impl Difference {
    pub(super) fn new(what: &str, manifest: impl Into<String>, file: impl Into<String>) -> Difference {
        Difference {
            what: what.to_owned(),
            manifest: manifest.into(),
            file: file.into(),
        }
    }
}

impl std::error::Error for Disagreement {}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not what its manifest says: ", self.file)?;
        for (index, Difference { what, manifest, file }) in self.differences.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{what} is {file}, by the manifest {manifest}")?;
        }
        Ok(())
    }
}

fn dimensions(shape: &[Option<usize>]) -> String {
    let each: Vec<_> = shape
        .iter()
        .map(|n| n.map_or_else(|| "open".to_owned(), |n| n.to_string()))
        .collect();
    format!("[{}]", each.join(", "))
}
