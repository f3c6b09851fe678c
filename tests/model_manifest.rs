//! What a manifest may say, and how it is told where it is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use hilum::lungs::{Boundary, Fat};
use hilum::model::{Axes, Blend, Device, Manifest, ManifestError, MaskBack, Overrides, TensorShape};

const GOOD: &str = r#"
schema = 1
name = "hilum-ahnet-lung-tiny"
version = "0.1.0"
licence = "Apache-2.0"
citation = "Somebody, somewhere"
description = "A small network."
weights_sha256 = "0000000000000000000000000000000000000000000000000000000000000001"
[[graph]]
file = "hilum-ahnet-lung-tiny.onnx"
sha256 = "0000000000000000000000000000000000000000000000000000000000000002"
devices = ["cpu"]
[[graph]]
file = "hilum-ahnet-lung-tiny-3d.onnx"
sha256 = "0000000000000000000000000000000000000000000000000000000000000003"
devices = ["cuda", "tensorrt"]
[input]
name = "image"
axes = "zyx"
[output]
name = "logits"
channels = 1
activation = "sigmoid"
foreground_channel = 0
threshold = 0.5
[grid]
spacing_mm = [0.8, 0.8, 5.0]
orientation = "LPS"
window_hu = [-1500.0, 500.0]
window_to = [0.0, 1.0]
straighten_over_degrees = 10.0
[windows]
roi = [224, 224, 32]
overlap = 0.25
blend = "constant"
batch = 1
crop_to_body = true
crop_above_hu = -500.0
crop_margin_mm = 10.0
skip_empty = true
[post]
mask_back = "probability"
keep_components = 2
min_component_ml = 20.0
fill_holes_ml = 10.0
[[segment]]
label = "Lung"
number = 1
category = ["123037004", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
"#;

fn good() -> Manifest {
    Manifest::parse(GOOD).unwrap()
}

#[test]
fn a_manifest_says_how_its_network_is_used() {
    let manifest = good();
    assert_eq!(
        manifest.graph_for(Device::Cpu).unwrap().file,
        "hilum-ahnet-lung-tiny.onnx"
    );
    assert_eq!(manifest.graph_for(Device::TensorRt), manifest.graph_for(Device::Cuda));
    let options = manifest.window_options();
    assert_eq!(
        (options.roi, options.axes, options.blend),
        ([224, 224, 32], Axes::Zyx, Blend::Constant)
    );
    assert_eq!(options.skip_below, Some(0.5), "-500 HU on the scale of -1500 to 500");
    assert_eq!(manifest.tensor_shape(2, 1), [2, 1, 32, 224, 224]);
    assert_eq!(manifest.post.clean_up().keep_components, 2);
}

#[test]
fn a_manifest_that_is_silent_about_the_boundary_has_the_usual_one() {
    assert_eq!(
        good().post.boundary(),
        Boundary {
            band_mm: 4.0,
            aerated_below_hu: -400.0
        }
    );
    let own = GOOD.replace(
        "fill_holes_ml = 10.0",
        "fill_holes_ml = 10.0\nboundary_mm = 0.0\nboundary_hu = -500.0",
    );
    let own = Manifest::parse(&own).unwrap().post.boundary();
    assert_eq!((own.band_mm, own.aerated_below_hu), (0.0, -500.0));
}

#[test]
fn aerated_voxels_have_a_threshold_of_their_own_where_a_manifest_says_so_and_the_boundary_step_is_on() {
    let cut = |manifest: &Manifest| (manifest.cut().threshold, manifest.cut().doubtful_from);
    assert_eq!(cut(&good()), (0.5, 0.5));
    let with = |value: &str| {
        GOOD.replace(
            "fill_holes_ml = 10.0",
            &format!("fill_holes_ml = 10.0\naerated_threshold = {value}"),
        )
    };
    let manifest = Manifest::parse(&with("0.12")).unwrap();
    assert_eq!(cut(&manifest), (0.5, 0.12));
    let switched = |boundary| {
        let overrides = Overrides {
            boundary: Some(boundary),
            ..Overrides::default()
        };
        cut(&manifest.with(&overrides).unwrap())
    };
    assert_eq!((switched(false), switched(true)), ((0.5, 0.5), (0.5, 0.12)));
    for wrong in ["0.0", "-0.1", "0.6", "nan"] {
        let error = Manifest::parse(&with(wrong)).unwrap_err().to_string();
        assert!(error.contains("post.aerated_threshold is"), "{wrong}: {error}");
    }
}

#[test]
fn fat_is_looked_for_where_a_manifest_says_so_and_the_mask_is_cleaned() {
    assert_eq!(good().post.fat(), None);
    let with = |range: &str| {
        GOOD.replace(
            "fill_holes_ml = 10.0",
            &format!("fill_holes_ml = 10.0\nfat_hu = {range}"),
        )
    };
    let manifest = Manifest::parse(&with("[-140.0, -40.0]")).unwrap();
    assert_eq!(
        manifest.post.fat(),
        Some(Fat {
            above_hu: -140.0,
            below_hu: -40.0
        })
    );
    let raw = manifest
        .with(&Overrides {
            clean_up: Some(false),
            ..Overrides::default()
        })
        .unwrap();
    assert_eq!(raw.post.fat(), None);
    for wrong in ["[-40.0, -140.0]", "[-140.0, 40.0]", "[-500.0, -40.0]", "[nan, -40.0]"] {
        let error = Manifest::parse(&with(wrong)).unwrap_err().to_string();
        assert!(error.contains("post.fat_hu is"), "{wrong}: {error}");
    }
}

#[test]
fn nvidias_network_can_be_described() {
    let text = GOOD
        .replace("axes = \"zyx\"", "axes = \"xyz\"")
        .replace("channels = 1\nactivation = \"sigmoid\"\nforeground_channel = 0", "channels = 2\nactivation = \"softmax\"\nforeground_channel = 1")
        .replace("devices = [\"cpu\"]", "devices = [\"cpu\", \"cuda\", \"tensorrt\"]")
        .replace("[[graph]]\nfile = \"hilum-ahnet-lung-tiny-3d.onnx\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000003\"\ndevices = [\"cuda\", \"tensorrt\"]\n", "");
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest.tensor_shape(1, 2), [1, 2, 224, 224, 32]);
    assert_eq!(manifest.graphs.len(), 1);
}

/// What is changed in a good manifest, and what the message then has to say.
const WRONG: [(&str, &str, &[&str]); 41] = [
    (
        "fill_holes_ml = 10.0",
        "fill_holes_ml = 10.0\nboundary_mm = -1.0",
        &["post.boundary_mm is -1", "0 to 10 millimetres"],
    ),
    (
        "fill_holes_ml = 10.0",
        "fill_holes_ml = 10.0\nboundary_mm = nan",
        &["post.boundary_mm is NaN"],
    ),
    (
        "fill_holes_ml = 10.0",
        "fill_holes_ml = 10.0\nboundary_hu = 20.0",
        &["post.boundary_hu is 20", "-1000 to 0"],
    ),
    ("schema = 1", "schema = 2", &["schema is 2", "expected 1"]),
    ("schema = 1", "schema = \"one\"", &["schema is \"one\"", "expected 1"]),
    ("schema = 1", "", &["missing field `schema`"]),
    (
        "version = \"0.1.0\"",
        "version = 1",
        &["line 4", "invalid type: integer `1`, expected a string"],
    ),
    ("licence =", "license =", &["unknown field `license`", "`licence`"]),
    (
        "overlap = 0.25",
        "overlap = 0.25\noverlaps = 1",
        &["unknown field `overlaps`", "`overlap`"],
    ),
    ("overlap = 0.25", "", &["missing field `overlap`"]),
    (
        "overlap = 0.25",
        "overlap = 1.0",
        &["windows.overlap is 1, expected a number of at least 0 and below 1"],
    ),
    ("overlap = 0.25", "overlap = nan", &["windows.overlap is NaN"]),
    ("overlap = 0.25", "overlap = -0.1", &["windows.overlap is -0.1"]),
    (
        "blend = \"constant\"",
        "blend = \"linear\"",
        &["unknown variant `linear`", "`constant`", "`gaussian`"],
    ),
    ("batch = 1", "batch = 0", &["windows.batch is 0, expected 1 to 256"]),
    ("batch = 1", "batch = -1", &["invalid value: integer `-1`"]),
    (
        "roi = [224, 224, 32]",
        "roi = [224, 224]",
        &["roi", "invalid length 2, expected an array of length 3"],
    ),
    (
        "roi = [224, 224, 32]",
        "roi = [224, 224, 0]",
        &["windows.roi is [224, 224, 0]", "1 to 4096"],
    ),
    (
        "roi = [224, 224, 32]",
        "roi = [4096, 4096, 4096]",
        &["windows.roi is 68719476736", "at most"],
    ),
    (
        "roi = [224, 224, 32]",
        "roi = [64, 64, 16]",
        &["windows.skip_empty is true", "51 x 51 x 80 mm", "inside a lung"],
    ),
    (
        "crop_above_hu = -500.0",
        "crop_above_hu = inf",
        &["windows.crop_above_hu is inf"],
    ),
    (
        "weights_sha256 = \"0",
        "weights_sha256 = \"X",
        &["weights_sha256 is", "64 lower-case hexadecimal digits"],
    ),
    (
        "file = \"hilum-ahnet-lung-tiny.onnx\"",
        "file = \"../other.onnx\"",
        &["graph[0].file is \"../other.onnx\"", "without a folder"],
    ),
    (
        "devices = [\"cpu\"]",
        "devices = []",
        &["graph[0].devices is an empty list"],
    ),
    (
        "devices = [\"cpu\"]",
        "devices = [\"cuda\"]",
        &["graph[1].devices is \"cuda\"", "at most once"],
    ),
    (
        "devices = [\"cpu\"]",
        "devices = [\"auto\"]",
        &["graph[0].devices is \"auto\""],
    ),
    (
        "devices = [\"cpu\"]",
        "devices = [\"gpu\"]",
        &["unknown variant `gpu`", "`tensorrt`"],
    ),
    (
        "axes = \"zyx\"",
        "axes = \"yxz\"",
        &["unknown variant `yxz`", "`zyx`", "`xyz`"],
    ),
    ("channels = 1", "channels = 0", &["output.channels is 0"]),
    (
        "activation = \"sigmoid\"",
        "activation = \"softmax\"",
        &["output.channels is 1, expected at least 2 with softmax"],
    ),
    (
        "foreground_channel = 0",
        "foreground_channel = 1",
        &["output.foreground_channel is 1, expected below output.channels, which is 1"],
    ),
    (
        "threshold = 0.5",
        "threshold = 1.0",
        &["output.threshold is 1, expected a probability between 0 and 1"],
    ),
    (
        "spacing_mm = [0.8, 0.8, 5.0]",
        "spacing_mm = [0.8, 0.0, 5.0]",
        &["grid.spacing_mm is [0.8, 0.0, 5.0]"],
    ),
    (
        "orientation = \"LPS\"",
        "orientation = \"LPR\"",
        &["grid.orientation is \"LPR\"", "one each of L or R"],
    ),
    (
        "window_hu = [-1500.0, 500.0]",
        "window_hu = [500.0, -1500.0]",
        &["grid.window_hu is [500.0, -1500.0]", "the lower first"],
    ),
    (
        "straighten_over_degrees = 10.0",
        "straighten_over_degrees = -1.0",
        &["grid.straighten_over_degrees is -1"],
    ),
    (
        "fill_holes_ml = 10.0",
        "fill_holes_ml = -1.0",
        &["post.fill_holes_ml is -1"],
    ),
    ("number = 1", "number = 2", &["segment[0].number is 2, expected 1"]),
    (
        "type = [\"39607008\"",
        "type = [\"39607008390076083960760839\"",
        &["segment[0].type[0]", "1 to 16 printable characters"],
    ),
    ("[[segment]]", "[segment]", &["segment", "expected a sequence"]),
    (
        "[[segment]]",
        "[[segment]]\nlabel = \"Airways\"\nnumber = 1\ncategory = [\"1\", \"SCT\", \"Structure\"]\ntype = [\"2\", \"SCT\", \"Airways\"]\n[[segment]]",
        &["segment is a list of 2, expected one [[segment]]"],
    ),
];

#[test]
fn a_wrong_manifest_is_told_which_key_and_what_was_expected() {
    for (from, to, words) in WRONG {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from} is not in the manifest");
        let message = Manifest::parse(&text).unwrap_err().to_string();
        for word in words {
            assert!(
                message.contains(word),
                "{from} -> {to}: \"{word}\" is not in \"{message}\""
            );
        }
    }
}

#[test]
fn a_manifest_that_is_not_there_or_not_a_page_of_text_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    assert!(matches!(Manifest::load(&path), Err(ManifestError::Unreadable { .. })));
    std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    let message = Manifest::load(&path).unwrap_err().to_string();
    assert!(
        message.contains("a.toml") && message.contains("2097152 bytes"),
        "{message}"
    );
    std::fs::write(&path, "schema = ").unwrap();
    assert!(Manifest::load(&path).unwrap_err().to_string().contains("a.toml"));
    std::fs::write(&path, GOOD).unwrap();
    let manifest = Manifest::load(&path).unwrap();
    assert_eq!(
        manifest.path_of(&manifest.graphs[0]),
        folder.path().join("hilum-ahnet-lung-tiny.onnx")
    );
}

fn tensor(name: &str, element: &str, shape: &[usize]) -> TensorShape {
    let shape = shape.iter().map(|n| (*n > 0).then_some(*n)).collect();
    TensorShape {
        name: name.into(),
        element: element.into(),
        shape,
    }
}

#[test]
fn a_graph_whose_tensors_are_as_said_agrees_and_open_dimensions_do_too() {
    let manifest = good();
    for shape in [
        [1, 1, 32, 224, 224],
        [0, 1, 32, 224, 224],
        [0, 0, 0, 0, 0],
        [4, 1, 32, 224, 224],
    ] {
        let tensors = [
            [tensor("image", "float32", &shape)],
            [tensor("logits", "float32", &shape)],
        ];
        manifest.verify(&manifest.graphs[0], &tensors[0], &tensors[1]).unwrap();
    }
}

#[test]
fn a_graph_with_other_tensors_is_refused_with_every_difference() {
    let manifest = good();
    let refused = |inputs: &[TensorShape], outputs: &[TensorShape]| {
        manifest
            .verify(&manifest.graphs[0], inputs, outputs)
            .unwrap_err()
            .to_string()
    };
    let (input, output) = (
        tensor("image", "float32", &[1, 1, 32, 224, 224]),
        tensor("logits", "float32", &[1, 1, 32, 224, 224]),
    );
    let message = refused(
        &[tensor("x", "float32", &[1, 1, 32, 224, 224])],
        std::slice::from_ref(&output),
    );
    assert_eq!(
        message,
        "hilum-ahnet-lung-tiny.onnx is not what its manifest says: input name is \"x\", by the manifest \"image\""
    );
    let message = refused(
        &[tensor("image", "float16", &[1, 1, 224, 224, 32])],
        &[tensor("logits", "float32", &[0, 2, 32, 224, 224])],
    );
    for part in [
        "element type of \"image\" is float16, by the manifest float32",
        "shape of \"image\" is [1, 1, 224, 224, 32], by the manifest [batch, 1, 32, 224, 224]",
        "shape of \"logits\" is [open, 2, 32, 224, 224], by the manifest [batch, 1, 32, 224, 224]",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(refused(&[input.clone(), input.clone()], &[output]).contains("number of inputs is 2, by the manifest 1"));
    assert!(refused(&[input], &[tensor("logits", "float32", &[1, 1])]).contains("shape of \"logits\" is [1, 1]"));
}

#[test]
fn deviations_change_what_they_name_and_nothing_else() {
    let manifest = good();
    assert_eq!(manifest.with(&Overrides::default()).unwrap(), manifest);
    let overrides = Overrides {
        blend: Some(Blend::Gaussian),
        overlap: Some(0.5),
        crop_to_body: Some(false),
        skip_empty: Some(false),
        mask_back: Some(MaskBack::Label),
        clean_up: Some(false),
        boundary: Some(false),
    };
    let changed = manifest.with(&overrides).unwrap();
    assert_eq!((changed.windows.blend, changed.windows.overlap), (Blend::Gaussian, 0.5));
    assert!(!changed.windows.crop_to_body && changed.window_options().skip_below.is_none());
    assert_eq!(changed.post.mask_back, MaskBack::Label);
    let clean_up = changed.post.clean_up();
    assert_eq!(
        (
            clean_up.keep_components,
            clean_up.min_component_ml,
            clean_up.fill_holes_ml
        ),
        (0, 0.0, 0.0)
    );
    assert_eq!(
        (&changed.grid, &changed.graphs, &changed.segments),
        (&manifest.grid, &manifest.graphs, &manifest.segments)
    );
    assert_eq!(changed.post.boundary(), Boundary::OFF);
    let on = Overrides {
        boundary: Some(true),
        ..Overrides::default()
    };
    assert_eq!(changed.with(&on).unwrap().post.boundary_mm, 4.0);
    let mut wider = manifest.clone();
    wider.post.boundary_mm = 5.0;
    assert_eq!(wider.with(&on).unwrap(), wider, "the manifest's own band stays");
    let wrong = manifest.with(&Overrides {
        overlap: Some(1.5),
        ..Overrides::default()
    });
    assert!(wrong.unwrap_err().to_string().contains("windows.overlap is 1.5"));
}

#[test]
fn parameters_are_told_with_the_digits_of_the_manifest() {
    let text = GOOD.replacen("threshold = 0.5", "threshold = 0.9", 1);
    let text = text.replacen("crop_above_hu = -500.0", "crop_above_hu = -500.1", 1);
    let parameters = Manifest::parse(&text).unwrap().parameters();
    for told in [
        serde_json::to_value(&parameters).unwrap(),
        serde_json::from_str(&serde_json::to_string(&parameters).unwrap()).unwrap(),
    ] {
        assert_eq!(told["threshold"], 0.9);
        assert_eq!(told["crop_above_hu"], -500.1);
    }
}

#[test]
fn every_parameter_that_can_change_a_mask_changes_the_digest_and_no_other() {
    let digest = |text: &str| Manifest::parse(text).unwrap().parameters().digest();
    let usual = digest(GOOD);
    assert_eq!(usual.len(), 64);
    for (from, to) in [
        ("axes = \"zyx\"", "axes = \"xyz\""),
        ("threshold = 0.5", "threshold = 0.4"),
        ("activation = \"sigmoid\"", "activation = \"none\""),
        ("spacing_mm = [0.8, 0.8, 5.0]", "spacing_mm = [0.8, 0.8, 5.1]"),
        ("orientation = \"LPS\"", "orientation = \"RAS\""),
        ("window_hu = [-1500.0", "window_hu = [-1024.0"),
        ("straighten_over_degrees = 10.0", "straighten_over_degrees = 12.0"),
        ("roi = [224, 224, 32]", "roi = [224, 224, 64]"),
        ("overlap = 0.25", "overlap = 0.5"),
        ("blend = \"constant\"", "blend = \"gaussian\""),
        ("crop_to_body = true", "crop_to_body = false"),
        ("crop_above_hu = -500.0", "crop_above_hu = -600.0"),
        ("crop_margin_mm = 10.0", "crop_margin_mm = 12.0"),
        ("skip_empty = true", "skip_empty = false"),
        ("mask_back = \"probability\"", "mask_back = \"label\""),
        ("keep_components = 2", "keep_components = 1"),
        ("min_component_ml = 20.0", "min_component_ml = 21.0"),
        ("fill_holes_ml = 10.0", "fill_holes_ml = 11.0"),
        ("fill_holes_ml = 10.0", "fill_holes_ml = 10.0\nboundary_mm = 3.0"),
        ("fill_holes_ml = 10.0", "fill_holes_ml = 10.0\nboundary_hu = -450.0"),
        ("fill_holes_ml = 10.0", "fill_holes_ml = 10.0\naerated_threshold = 0.12"),
        ("fill_holes_ml = 10.0", "fill_holes_ml = 10.0\nfat_hu = [-140.0, -40.0]"),
    ] {
        assert_ne!(digest(&GOOD.replacen(from, to, 1)), usual, "{from}");
    }
    for (from, to) in [
        ("batch = 1", "batch = 4"),
        ("description = \"A small", "description = \"A"),
        ("label = \"Lung\"", "label = \"Lungs\""),
    ] {
        assert_eq!(digest(&GOOD.replacen(from, to, 1)), usual, "{from}");
    }
}

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models.md")).unwrap()
}

#[test]
fn the_manifest_on_the_page_is_one() {
    let text = page();
    let block = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let manifest = Manifest::parse(block).unwrap();
    assert_eq!(manifest.tensor_shape(1, manifest.output.channels), [1, 2, 224, 224, 32]);
}

#[test]
fn the_page_explains_every_key() {
    let text = page();
    let table = GOOD.parse::<toml::Table>().unwrap();
    let mut keys = Vec::new();
    for (key, value) in &table {
        let section = match value {
            toml::Value::Table(section) => Some(section),
            toml::Value::Array(list) => list.first().and_then(toml::Value::as_table),
            _ => None,
        };
        keys.extend(section.map_or_else(|| vec![key.clone()], |section| section.keys().cloned().collect()));
    }
    assert!(keys.len() > 35, "{keys:?}");
    for key in keys {
        let explained = [format!("`{key}`"), format!("`input.{key}`"), format!("`output.{key}`")];
        assert!(
            explained.iter().any(|key| text.contains(key.as_str())),
            "{key} is not explained in docs/models.md"
        );
    }
}
