//! How slices are named to people.

use super::*;

/// The names of the first two slices of the chest, whose files lie at these paths and places.
fn named(sources: [(&str, u64); 2]) -> [String; 2] {
    let mut series = chest(2);
    for (instance, (path, offset)) in series.instances.iter_mut().zip(sources) {
        instance.source.path = PathBuf::from(path).into();
        instance.source.offset = offset;
    }
    let names = Names::new(&series);
    [0, 1].map(|k| names.slice(&candidate(&chest(4)).stack().slices[k]))
}

#[test]
fn a_slice_has_the_path_of_its_file_below_the_folder_that_all_share() {
    assert_eq!(
        named([("/data/SMITH/ct/1.dcm", 0), ("/data/SMITH/ct/2.dcm", 0)]),
        ["1.dcm", "2.dcm"]
    );
    assert_eq!(
        named([("/data/SMITH/a/1.dcm", 0), ("/data/SMITH/b/1.dcm", 0)]),
        ["a/1.dcm", "b/1.dcm"]
    );
}

#[test]
fn slices_that_share_a_file_have_their_uids_the_first_too() {
    assert_eq!(
        named([("/data/all", 0), ("/data/all", 5000)]),
        ["1.2.3.4.1", "1.2.3.4.2"]
    );
    // The file holds others, of another series.
    assert_eq!(named([("/data/1.dcm", 0), ("/data/all", 5000)]), ["1.dcm", "1.2.3.4.2"]);
}

#[test]
fn slices_in_the_services_inbox_have_their_uids_even_if_alone_in_a_file() {
    assert_eq!(
        named([("/inbox/0198.batch", 0), ("/inbox/0199.batch", 0)]),
        ["1.2.3.4.1", "1.2.3.4.2"]
    );
}

#[test]
fn frames_have_their_numbers() {
    let mut series = chest(4);
    let frame = series.instances[1].header.frames[0].clone();
    series.instances[1].header.frames = vec![frame; 3];
    let slice = Slice {
        frame: 2,
        ..candidate(&chest(4)).stack().slices[1].clone()
    };
    assert_eq!(Names::new(&series).slice(&slice), "0001.dcm frame 3");
}
