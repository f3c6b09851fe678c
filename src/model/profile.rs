//! ONNX Runtime's profile of a run in, the number of nodes that each provider ran out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// An event of the profile; what else it says is passed over.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    provider: Option<String>,
    node_index: Option<String>,
}

/// The number of different nodes that each provider ran. A node that ran twice counts once.
///
/// # Errors
/// The profile is not what ONNX Runtime writes.
pub(super) fn nodes_by_provider(profile: &[u8]) -> Result<BTreeMap<String, usize>, serde_json::Error> {
    let events: Vec<Event> = serde_json::from_slice(profile)?;
    let nodes: BTreeSet<(String, String)> = events
        .into_iter()
        .filter(|event| event.cat == "Node")
        .filter_map(|event| Some((event.args.provider?, event.args.node_index.unwrap_or(event.name))))
        .collect();
    let mut counts = BTreeMap::new();
    for (provider, _) in nodes {
        *counts.entry(provider).or_insert(0) += 1;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_counts_once_for_its_provider() {
        let node = |name: &str, index: u32, provider: &str| {
            let arguments = format!(r#"{{"op_name": "Conv", "provider": "{provider}", "node_index": "{index}"}}"#);
            format!(r#"{{"cat": "Node", "name": "{name}_kernel_time", "dur": 3, "args": {arguments}}}"#)
        };
        let session = r#"{"cat": "Session", "name": "model_run", "args": {}}"#.to_owned();
        let events = [
            session,
            node("a", 0, "X"),
            node("b", 1, "X"),
            node("a", 0, "X"),
            node("c", 2, "Y"),
        ];
        let counts = nodes_by_provider(format!("[{}]", events.join(",")).as_bytes()).unwrap();
        assert_eq!(counts, BTreeMap::from([("X".to_owned(), 2), ("Y".to_owned(), 1)]));
        assert!(nodes_by_provider(b"[{").is_err());
    }
}
