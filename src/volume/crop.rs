//! An image on the network's grid in, the box that holds the body out.
//!
//! As MONAI's `CropForeground`: the bounding box of what lies above a threshold, and a margin, in whole voxels, so that no sample moves. Unlike it, a table, a
//! blanket or noise far from the body does not widen the box: it is drawn around the large connected parts, found on blocks of about 4 mm more than half of
//! whose voxels lie above the threshold.

use rayon::prelude::*;

use super::resample::Scale;
use super::{GridSpecification, Image, RegularGrid};

/// Edge of the blocks on which parts are told apart.
const BLOCK_MM: f64 = 4.0;
/// Parts smaller than this share of the largest are not body.
const LEAST_SHARE: f64 = 0.05;

/// A box of whole voxels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoxelBox {
    /// First voxel along z, y, x.
    pub start: [usize; 3],
    /// Voxel after the last along z, y, x.
    pub end: [usize; 3],
}

impl VoxelBox {
    /// Voxels along z, y, x.
    pub fn shape(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.end[i] - self.start[i])
    }
}

impl RegularGrid {
    /// The part of the grid in a box that lies inside it. No voxel moves.
    pub fn cropped(&self, within: &VoxelBox) -> RegularGrid {
        let [z, y, x] = within.start.map(|start| start as f64);
        RegularGrid {
            shape: within.shape(),
            origin: self.centre(z, y, x),
            ..self.clone()
        }
    }
}

impl Image {
    /// The part of the image in a box that lies inside it.
    pub fn cropped(&self, within: &VoxelBox) -> Image {
        let grid = self.grid.cropped(within);
        let [_, rows, columns] = self.grid.shape;
        let [_, out_rows, out_columns] = grid.shape;
        let mut values = vec![0.0; grid.voxel_count()];
        values
            .par_chunks_mut(out_columns.max(1))
            .enumerate()
            .for_each(|(i, row)| {
                let (z, y) = (within.start[0] + i / out_rows, within.start[1] + i % out_rows);
                let start = (z * rows + y) * columns + within.start[2];
                row.copy_from_slice(&self.values[start..start + out_columns]);
            });
        Image { grid, values }
    }
}

/// The box around the body in an image that [`resample`](super::resample) made: what is denser than `above_hu` in parts that are not small, and `margin_mm` on
/// every side. `None` if there is nothing so dense. The specification's `window_to` must ascend.
pub fn crop_to_body(
    image: &Image,
    specification: &GridSpecification,
    above_hu: f32,
    margin_mm: f64,
) -> Option<VoxelBox> {
    let threshold = Scale::window(specification).apply(above_hu);
    let shape = image.grid.shape;
    let spacing = [2, 1, 0].map(|axis| image.grid.spacing_mm[axis]);
    let block: [usize; 3] = spacing.map(|mm| ((BLOCK_MM / mm).round() as usize).max(1));
    let blocks: [usize; 3] = std::array::from_fn(|i| shape[i].div_ceil(block[i]));
    let mut dense = dense_blocks(image, threshold, block, blocks);
    let parts = parts(&mut dense, blocks);
    let largest = parts.iter().map(|part| part.blocks).max()?;
    let kept = parts
        .iter()
        .filter(|part| part.blocks as f64 >= LEAST_SHARE * largest as f64);
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for part in kept {
        for i in 0..3 {
            low[i] = low[i].min(part.low[i]);
            high[i] = high[i].max(part.high[i] + 1);
        }
    }
    // A block of margin for what fills less than half a block at the border.
    let margin: [usize; 3] = std::array::from_fn(|i| (margin_mm.max(0.0) / spacing[i]).ceil() as usize);
    Some(VoxelBox {
        start: std::array::from_fn(|i| (low[i].saturating_sub(1) * block[i]).saturating_sub(margin[i])),
        end: std::array::from_fn(|i| ((high[i] + 1) * block[i]).saturating_add(margin[i]).min(shape[i])),
    })
}

/// For every block whether more than half of its voxels lie above the threshold.
fn dense_blocks(image: &Image, threshold: f32, block: [usize; 3], blocks: [usize; 3]) -> Vec<bool> {
    let [depth, height, width] = image.grid.shape;
    let mut dense = vec![false; blocks.iter().product()];
    dense
        .par_chunks_mut(blocks[1] * blocks[2])
        .enumerate()
        .for_each(|(bz, plane)| {
            let layers = bz * block[0]..((bz + 1) * block[0]).min(depth);
            for (by, line) in plane.chunks_exact_mut(blocks[2]).enumerate() {
                let rows = by * block[1]..((by + 1) * block[1]).min(height);
                let mut above = vec![0_u32; blocks[2]];
                for z in layers.clone() {
                    for y in rows.clone() {
                        let row = &image.values[(z * height + y) * width..][..width];
                        for (count, values) in above.iter_mut().zip(row.chunks(block[2])) {
                            *count += values.iter().map(|value| u32::from(*value > threshold)).sum::<u32>();
                        }
                    }
                }
                for (bx, (flag, count)) in line.iter_mut().zip(above).enumerate() {
                    let columns = ((bx + 1) * block[2]).min(width) - bx * block[2];
                    *flag = 2 * count as usize > layers.len() * rows.len() * columns;
                }
            }
        });
    dense
}

/// A connected part: its number of blocks and its bounding box.
struct Part {
    blocks: usize,
    low: [usize; 3],
    high: [usize; 3],
}

/// The connected parts (by faces) of the dense blocks, which are cleared on the way.
fn parts(dense: &mut [bool], blocks: [usize; 3]) -> Vec<Part> {
    let strides = [blocks[1] * blocks[2], blocks[2], 1];
    let mut parts = Vec::new();
    let mut open = Vec::new();
    for first in 0..dense.len() {
        if !std::mem::take(&mut dense[first]) {
            continue;
        }
        let mut part = Part {
            blocks: 0,
            low: [usize::MAX; 3],
            high: [0; 3],
        };
        open.push(first);
        while let Some(index) = open.pop() {
            part.blocks += 1;
            for i in 0..3 {
                let place = index / strides[i] % blocks[i];
                part.low[i] = part.low[i].min(place);
                part.high[i] = part.high[i].max(place);
                if place > 0 && std::mem::take(&mut dense[index - strides[i]]) {
                    open.push(index - strides[i]);
                }
                if place + 1 < blocks[i] && std::mem::take(&mut dense[index + strides[i]]) {
                    open.push(index + strides[i]);
                }
            }
        }
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn specification() -> GridSpecification {
        GridSpecification {
            spacing_mm: [0.8, 0.8, 5.0],
            orientation: "LPS".into(),
            window_hu: [-1500.0, 500.0],
            window_to: [0.0, 1.0],
            straighten_over_degrees: 180.0,
        }
    }

    /// Air with boxes of water in it.
    fn image(boxes: &[([usize; 3], [usize; 3])]) -> Image {
        let shape = [10, 100, 120];
        let grid = RegularGrid {
            shape,
            origin: [0.0; 3],
            axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            spacing_mm: [0.8, 0.8, 5.0],
        };
        let mut values = vec![0.25; grid.voxel_count()];
        for (start, end) in boxes {
            for z in start[0]..end[0] {
                for y in start[1]..end[1] {
                    for x in start[2]..end[2] {
                        values[(z * shape[1] + y) * shape[2] + x] = 0.75;
                    }
                }
            }
        }
        Image { grid, values }
    }

    #[test]
    fn the_box_holds_the_body_and_not_the_table() {
        let image = image(&[([2, 30, 40], [8, 60, 90]), ([0, 80, 5], [10, 82, 115])]);
        let found = crop_to_body(&image, &specification(), -500.0, 0.0).unwrap();
        assert!(
            found.start[1] <= 30 && found.end[1] >= 60 && found.end[1] < 80,
            "{found:?}"
        );
        assert!(
            found.start[2] <= 40 && found.start[2] > 25 && found.end[2] >= 90 && found.end[2] < 105,
            "{found:?}"
        );
        assert_eq!((found.start[0], found.end[0]), (1, 9));
    }

    #[test]
    fn the_margin_ends_at_the_border_and_air_has_no_box() {
        let all = crop_to_body(&image(&[([2, 30, 40], [8, 60, 90])]), &specification(), -500.0, 500.0).unwrap();
        assert_eq!(
            all,
            VoxelBox {
                start: [0; 3],
                end: [10, 100, 120]
            }
        );
        assert_eq!(crop_to_body(&image(&[]), &specification(), -500.0, 0.0), None);
    }

    #[test]
    fn cropping_moves_no_voxel() {
        let mut image = image(&[]);
        for (i, value) in image.values.iter_mut().enumerate() {
            *value = i as f32;
        }
        let within = VoxelBox {
            start: [3, 20, 30],
            end: [5, 40, 33],
        };
        let cropped = image.cropped(&within);
        assert_eq!(cropped.grid.shape, [2, 20, 3]);
        assert_eq!(cropped.values[3 * 20 + 2], ((4 * 100 + 20) * 120 + 32) as f32);
        assert_eq!(cropped.grid.centre(1.0, 0.0, 2.0), image.grid.centre(4.0, 20.0, 32.0));
    }
}
