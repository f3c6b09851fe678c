//! The picture of bodies built in code: where sides stand, true proportions, and nothing of the mask where no lungs were found.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use super::*;
use crate::series::vector::cross;
use crate::volume::{Grid, Voxels};

/// Half the edge of a body around the patient's origin, in millimetres.
const HALF_MM: f64 = 90.0;

/// Nothing narrower is a panel: the strokes of text are not.
const LEAST_PANEL: usize = 40;

/// Water with balls of air in it, centre and radius in millimetres, labelled 1 and on; the spacing is along row, column and normal.
fn body(
    [row_direction, column_direction]: [[f64; 3]; 2],
    spacing_mm: [f64; 3],
    balls: &[([f64; 3], f64)],
) -> (Volume, Mask) {
    let normal = cross(row_direction, column_direction);
    // An odd number along each axis: a voxel lies at the origin.
    let each_side = spacing_mm.map(|mm| (HALF_MM / mm) as usize);
    let [columns, rows, slices] = each_side.map(|count| 2 * count + 1);
    let first = [0, 1, 2].map(|axis| -spacing_mm[axis] * each_side[axis] as f64);
    let origin = |slice: usize| -> [f64; 3] {
        let along_normal = first[2] + spacing_mm[2] * slice as f64;
        std::array::from_fn(|i| first[0] * row_direction[i] + first[1] * column_direction[i] + along_normal * normal[i])
    };
    let grid = Grid {
        rows,
        columns,
        origins: (0..slices).map(origin).collect(),
        row_direction,
        column_direction,
        normal,
        spacing_mm: [spacing_mm[1], spacing_mm[0]],
    };
    let label = |index: usize| {
        let (slice, row, column) = (index / columns / rows, index / columns % rows, index % columns);
        let point = grid.centre(slice, row as f64, column as f64);
        let holds = |(centre, radius): &([f64; 3], f64)| {
            let squares = [0, 1, 2].map(|i| (point[i] - centre[i]).powi(2));
            squares.iter().sum::<f64>() <= radius * radius
        };
        balls.iter().position(holds).map_or(0, |ball| ball as u8 + 1)
    };
    let labels: Vec<u8> = (0..grid.voxel_count()).map(label).collect();
    let hu = |label: &u8| if *label > 0 { -850 } else { 40 };
    let volume = Volume {
        voxels: Voxels::I16(labels.iter().map(hu).collect()),
        padding_hu: vec![None; slices],
        grid,
    };
    let shape = volume.grid.shape();
    (volume, Mask { shape, labels })
}

/// The right lung, which lies further to the front and to the head, and the left one: no axis can be turned unseen.
const LUNGS: [([f64; 3], f64); 2] = [([-45.0, -12.0, 15.0], 30.0), ([45.0, 12.0, -15.0], 30.0)];

const APART: Lungs = Lungs::Apart {
    right_ml: 113.0,
    left_ml: 113.0,
};

fn drawn(volume: &Volume, mask: &Mask, lungs: Lungs) -> Vec<u8> {
    let caption = Caption {
        lungs,
        ..Caption::default()
    };
    draw(volume, mask, &caption).unwrap()
}

/// Part of a picture: columns and rows.
#[derive(Clone, Debug)]
struct Area {
    x: Range<usize>,
    y: Range<usize>,
}

impl Area {
    fn middle(&self) -> [f64; 2] {
        [&self.x, &self.y].map(|range| 0.5 * (range.start + range.end - 1) as f64)
    }
}

/// A picture that was read back.
struct Picture {
    width: usize,
    pixels: Vec<Colour>,
}

impl Picture {
    fn decode(png: &[u8]) -> Picture {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        Picture {
            width: info.width as usize,
            pixels: bytes.chunks_exact(3).map(|pixel| pixel.try_into().unwrap()).collect(),
        }
    }

    fn row(&self, y: usize) -> &[Colour] {
        &self.pixels[y * self.width..][..self.width]
    }

    /// The axial, the coronal and the sagittal panel of the upper and of the lower row.
    fn panels(&self) -> [[Area; 3]; 2] {
        let across = |y: usize| runs(self.row(y).iter().map(|colour| *colour != PAGE), LEAST_PANEL);
        let height = self.pixels.len() / self.width;
        let rows = runs((0..height).map(|y| across(y).len() == 3), LEAST_PANEL);
        let panels = rows.into_iter().map(|y| {
            let columns: [Range<usize>; 3] = across(y.start).try_into().unwrap();
            columns.map(|x| Area { x, y: y.clone() })
        });
        panels.collect::<Vec<_>>().try_into().unwrap()
    }

    /// Columns and rows of the pixels of an area that are wanted.
    fn places(&self, area: &Area, wanted: impl Fn([i16; 3]) -> bool) -> [Vec<usize>; 2] {
        let mut places = [Vec::new(), Vec::new()];
        for y in area.y.clone() {
            for x in area.x.clone() {
                let colour = self.row(y)[x];
                if colour != LETTER && wanted(colour.map(i16::from)) {
                    places[0].push(x);
                    places[1].push(y);
                }
            }
        }
        places
    }

    /// The middle of the pixels that are wanted, of which there are some.
    fn centroid(&self, area: &Area, wanted: impl Fn([i16; 3]) -> bool) -> [f64; 2] {
        self.places(area, wanted).map(|places| {
            assert!(!places.is_empty(), "no such pixel in {area:?}");
            places.iter().sum::<usize>() as f64 / places.len() as f64
        })
    }

    /// Where a letter stands in an area; it stands there once.
    fn letter(&self, area: &Area, letter: &str) -> [f64; 2] {
        let size = [12, 22];
        let found = self.corners(area, letter, size, &FONT_10X20, LETTER);
        assert_eq!(found.len(), 1, "{letter} in {area:?}");
        [0, 1].map(|axis| (found[0][axis] + size[axis] / 2) as f64)
    }

    /// The upper left corners at which a text stands in an area; with an edge of one pixel around its font's cells it has this size.
    fn corners(
        &self,
        area: &Area,
        text: &str,
        size: [usize; 2],
        font: &embedded_graphics::mono_font::MonoFont<'_>,
        ink: Colour,
    ) -> Vec<[usize; 2]> {
        let mut canvas = Canvas::new(size[0], size[1], PAGE);
        canvas.outlined(text, [1, 1], Alignment::Left, font, ink);
        let glyph = Picture::decode(&canvas.png().unwrap());
        let inked = |colour: &Colour| *colour == ink;
        let first = glyph.pixels.iter().position(inked).unwrap();
        let first = [first % size[0], first / size[0]];
        let stands = |[x, y]: &[usize; 2]| {
            (0..size[1]).all(|row| {
                let here = &self.row(y + row)[*x..][..size[0]];
                here.iter().map(inked).eq(glyph.row(row).iter().map(inked))
            })
        };
        // Where the first pixel of the text is one of a text.
        let corners = (area.y.start..=area.y.end - size[1])
            .flat_map(|y| (area.x.start..=area.x.end - size[0]).map(move |x| [x, y]))
            .filter(|[x, y]| inked(&self.row(y + first[1])[x + first[0]]));
        corners.filter(stands).collect()
    }
}

/// The runs of true ones that are longer than `least`.
fn runs(flags: impl Iterator<Item = bool>, least: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, _) in flags.enumerate().filter(|(_, flag)| *flag) {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs.retain(|run| run.len() > least);
    runs
}

fn is_right([r, _, b]: [i16; 3]) -> bool {
    r - b > 30
}

fn is_left([r, _, b]: [i16; 3]) -> bool {
    b - r > 30
}

fn assert_ascending(places: &[f64], what: &str) {
    assert!(places.is_sorted_by(|a, b| a < b), "{what}: {places:?}");
}

#[test]
fn each_lung_stands_at_its_letter_however_the_slices_lie() {
    let (x, y) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]);
    let feet = [0.0, 0.0, -1.0];
    let turned = |direction: [f64; 3]| direction.map(|component| -component);
    for directions in [
        [x, y],
        [turned(x), y],
        [x, turned(y)],
        [turned(x), turned(y)],
        [x, feet],
        [y, feet],
    ] {
        let (volume, mask) = body(directions, [2.0, 2.5, 3.0], &LUNGS);
        let picture = Picture::decode(&drawn(&volume, &mask, APART));
        let [upper, lower] = picture.panels();
        let [axial, coronal, sagittal] = &lower;
        let what = |view: &str| format!("{view} of {directions:?}");

        let [right, left] = [picture.centroid(axial, is_right), picture.centroid(axial, is_left)];
        for panel in [axial, &upper[0]] {
            let [r, l, a, p] = ["R", "L", "A", "P"].map(|letter| picture.letter(panel, letter));
            assert_ascending(&[r[0], right[0], left[0], l[0]], &what("axial"));
            let down = panel.y.start as f64 - axial.y.start as f64;
            assert_ascending(&[a[1], right[1] + down, left[1] + down, p[1]], &what("axial, down"));
        }

        let [right, left] = [picture.centroid(coronal, is_right), picture.centroid(coronal, is_left)];
        for panel in [coronal, &upper[1]] {
            let [r, l, h, f] = ["R", "L", "H", "F"].map(|letter| picture.letter(panel, letter));
            assert_ascending(&[r[0], right[0], left[0], l[0]], &what("coronal"));
            let down = panel.y.start as f64 - coronal.y.start as f64;
            assert_ascending(&[h[1], right[1] + down, left[1] + down, f[1]], &what("coronal, down"));
        }

        // Through the right lung, which lies before and above the middle.
        let (right, middle) = (picture.centroid(sagittal, is_right), sagittal.middle());
        assert!(picture.places(sagittal, is_left)[0].is_empty(), "{}", what("sagittal"));
        for panel in [sagittal, &upper[2]] {
            let [a, p, h, f] = ["A", "P", "H", "F"].map(|letter| picture.letter(panel, letter));
            assert_ascending(&[a[0], right[0], middle[0], p[0]], &what("sagittal"));
            let down = panel.y.start as f64 - sagittal.y.start as f64;
            assert_ascending(
                &[h[1], right[1] + down, middle[1] + down, f[1]],
                &what("sagittal, down"),
            );
        }
    }
}

#[test]
fn a_ball_in_flat_voxels_is_round_in_every_view_and_as_large_as_the_scale_says() {
    // The slices at 60 mm to both sides still hold a disc, so that it ends half a slice beyond, at its radius.
    let radius_mm = 62.5;
    let directions = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    let lungs = Lungs::Apart {
        right_ml: 1023.0,
        left_ml: 0.0,
    };
    let (volume, mask) = body(directions, [0.7, 0.7, 5.0], &[([0.0; 3], radius_mm)]);
    let picture = Picture::decode(&drawn(&volume, &mask, lungs));
    let [upper, lower] = picture.panels();
    let bars = upper[0].y.clone().flat_map(|y| {
        let ink = picture.row(y)[upper[0].x.clone()].iter().map(|colour| *colour == INK);
        runs(ink, LEAST_PANEL)
    });
    let bar = bars.map(|run| run.len()).max().unwrap();
    let expected = bar as f64 * 2.0 * radius_mm / 50.0;
    for (panel, view) in lower.iter().zip(View::ALL) {
        let sizes = picture
            .places(panel, is_right)
            .map(|places| places.iter().max().unwrap() - places.iter().min().unwrap() + 1);
        assert!(sizes[0].abs_diff(sizes[1]) <= 2, "{view:?}: {sizes:?}");
        assert!(
            (sizes[0] as f64 - expected).abs() <= 4.0,
            "{view:?}: {sizes:?}, by the scale {expected}"
        );
    }
}

#[test]
fn densities_are_grey_between_1350_below_and_150_above_water_and_the_picture_says_so() {
    let (mut volume, mask) = body([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [3.0; 3], &[]);
    for (hu, grey) in [
        (-2000, 0),
        (-1350, 0),
        (-1050, 51),
        (-600, 128),
        (-150, 204),
        (150, 255),
        (900, 255),
    ] {
        volume.voxels = Voxels::I16(vec![hu; volume.grid.voxel_count()]);
        let picture = Picture::decode(&drawn(&volume, &mask, Lungs::NotFound));
        let [upper, _] = picture.panels();
        for panel in &upper {
            let [x, y] = panel.middle().map(|at| at as usize);
            assert_eq!(picture.row(y)[x], [grey; 3], "{hu} HU in {panel:?}");
        }
        // 13 letters of 8 x 13.
        let told = picture.corners(&upper[0], "W 1500 L -600", [106, 15], &FONT_8X13, INK);
        assert_eq!(told.len(), 1, "{hu} HU: {told:?}");
    }
}

#[test]
fn where_no_lungs_were_found_the_picture_is_that_of_an_empty_mask() {
    let (volume, mask) = body([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [3.0; 3], &LUNGS);
    let empty = Mask {
        shape: mask.shape,
        labels: vec![0; mask.labels.len()],
    };
    let not_found = drawn(&volume, &empty, Lungs::NotFound);
    assert!(
        drawn(&volume, &mask, Lungs::NotFound) == not_found,
        "something of the mask is shown"
    );
    assert!(drawn(&volume, &mask, Lungs::Together(226.0)) != not_found);
}
