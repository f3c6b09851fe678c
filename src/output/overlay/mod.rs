//! A volume, its mask and what is known of both in, a picture (PNG) out: axial, coronal and sagittal through the lungs, the CT above and the CT with the mask below.
//!
//! Nothing in it names a person: no free text of the source is shown, of the series only what scanners write by themselves.

mod canvas;
mod planes;
#[cfg(test)]
mod tests;
mod views;

use embedded_graphics::mono_font::ascii::{FONT_8X13, FONT_9X15, FONT_9X15_BOLD, FONT_10X20};
use embedded_graphics::text::Alignment;

use self::canvas::{Canvas, Colour};
use self::planes::{Sample, Sampler};
use self::views::{View, Views};
use super::OutputError;
use crate::volume::{Mask, Volume};

/// The lung window.
const LEVEL_HU: f32 = -600.0;
const WIDTH_HU: f32 = 1500.0;

const WIDTH: usize = 1440;
const MARGIN: usize = 24;
const GAP: usize = 12;
const HEADER: usize = 52;
const ROW_TITLE: usize = 26;
const FOOTER: usize = 148;
/// A row is not made taller than this, whatever the shape of the volume.
const MOST_ROW: f64 = 620.0;

const PAGE: Colour = [16, 19, 24];
const BLACK: Colour = [0, 0, 0];
const INK: Colour = [226, 230, 236];
const DIM: Colour = [139, 149, 163];
const LETTER: Colour = [255, 214, 102];
const RIGHT: Colour = [255, 132, 84];
const LEFT: Colour = [84, 190, 255];
const BOTH: Colour = [96, 220, 160];
const WARNING: Colour = [255, 190, 92];

/// How much of the colour covers the grey inside a lung.
const TINT: f32 = 0.22;

/// Half the thickness of a contour, in pixels.
const HALF_LINE: f32 = 0.8;

/// What the caption says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caption {
    /// Modality.
    pub modality: String,
    /// ConvolutionKernel; empty if not stated.
    pub kernel: String,
    /// SliceThickness in millimetres, if stated.
    pub slice_thickness_mm: Option<f64>,
    /// Name and version of the model.
    pub model: String,
    /// The volumes of the lungs.
    pub lungs: Lungs,
    /// Codes of both verdicts.
    pub findings: Vec<String>,
}

/// What there is of the lungs, in millilitres.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Lungs {
    /// Nothing, or too little for lungs.
    #[default]
    NotFound,
    /// Right and left were not told apart; both are drawn in one colour.
    Together(f64),
    /// Right and left.
    Apart {
        /// The right lung, label 1.
        right_ml: f64,
        /// The left lung, label 2.
        left_ml: f64,
    },
}

/// The bytes of a PNG file. With [`Lungs::NotFound`] nothing of the mask is shown.
///
/// # Errors
/// Volume and mask do not fit each other, or the picture cannot be encoded.
pub fn draw(volume: &Volume, mask: &Mask, caption: &Caption) -> Result<Vec<u8>, OutputError> {
    let grid = &volume.grid;
    if mask.shape != grid.shape() || mask.labels.len() != grid.voxel_count() || grid.voxel_count() == 0 {
        let message = format!(
            "a mask of {:?} does not lie on a volume of {:?}",
            mask.shape,
            grid.shape()
        );
        return Err(OutputError::Disagreement(message));
    }
    // What was found and is too little for lungs is no mask: no label is drawn, and no plane goes through it.
    let labels: &[u8] = match caption.lungs {
        Lungs::NotFound => &[],
        Lungs::Together(_) | Lungs::Apart { .. } => &mask.labels,
    };
    let views = Views::through(volume, labels, caption.lungs);
    let sampler = Sampler::new(volume, labels);
    let scale = pixels_per_mm(&views);
    let planes = View::ALL.map(|view| views.plane(view, scale));
    let row_height = planes.iter().map(|plane| plane.height).max().unwrap_or(1);
    let block = ROW_TITLE + row_height;
    let height = HEADER + 2 * block + GAP + FOOTER;
    let mut canvas = Canvas::new(WIDTH, height, PAGE);

    header(&mut canvas);
    let used: usize = planes.iter().map(|plane| plane.width).sum::<usize>() + 2 * GAP;
    let mut x = (WIDTH.saturating_sub(used) / 2) as i32;
    let tops = [HEADER + ROW_TITLE, HEADER + block + GAP + ROW_TITLE].map(|top| top as i32);
    let second = if caption.lungs == Lungs::NotFound {
        "no mask: lungs not found"
    } else {
        "CT with the mask"
    };
    for (top, title) in tops.iter().zip(["CT", second]) {
        canvas.text(title, [x, top - 20], Alignment::Left, &FONT_9X15, INK);
    }
    for (view, plane) in View::ALL.into_iter().zip(&planes) {
        let samples = sampler.plane(plane);
        let grey: Vec<Colour> = samples.iter().map(|sample| [grey(sample); 3]).collect();
        let tinted = tint(&samples, plane.width, colours(caption.lungs));
        let inset = ((row_height - plane.height) / 2) as i32;
        for (row, (top, pixels)) in tops.into_iter().zip([grey, tinted]).enumerate() {
            canvas.fill([x, top], [plane.width, row_height], BLACK);
            canvas.image([x, top + inset], plane.width, &pixels);
            let panel = Panel {
                x,
                y: top,
                width: plane.width as i32,
                height: row_height as i32,
                inset,
                first: row == 0,
            };
            panel.annotate(&mut canvas, view, &views, scale, volume);
        }
        x += (plane.width + GAP) as i32;
    }
    footer(&mut canvas, volume, caption, (height - FOOTER + 14) as i32);
    canvas.png()
}

/// One scale for all three views, so that they can be compared.
fn pixels_per_mm(views: &Views) -> f64 {
    let extents = View::ALL.map(|view| views.extent_mm(view));
    let width: f64 = extents.iter().map(|extent| extent[0]).sum();
    let height = extents.iter().map(|extent| extent[1]).fold(1.0, f64::max);
    ((WIDTH - 2 * MARGIN - 2 * GAP) as f64 / width).min(MOST_ROW / height)
}

fn grey(sample: &Sample) -> u8 {
    let low = LEVEL_HU - WIDTH_HU / 2.0;
    sample
        .hu
        .map_or(0, |hu| ((hu - low) / WIDTH_HU * 255.0).clamp(0.0, 255.0).round() as u8)
}

/// Colours of label 1 and label 2.
fn colours(lungs: Lungs) -> [Colour; 2] {
    match lungs {
        Lungs::NotFound | Lungs::Together(_) => [BOTH, BOTH],
        Lungs::Apart { .. } => [RIGHT, LEFT],
    }
}

/// Grey with a tint inside each label and a smooth line where it ends: the line lies where the interpolated label is one half.
fn tint(samples: &[Sample], width: usize, colours: [Colour; 2]) -> Vec<Colour> {
    let same = colours[0] == colours[1];
    let label = |index: usize, which: usize| {
        let [first, second] = samples[index].labels;
        match (same, which) {
            (true, 0) => first + second,
            (true, _) => 0.0,
            (false, 0) => first,
            (false, _) => second,
        }
    };
    let height = samples.len() / width.max(1);
    (0..samples.len())
        .map(|index| {
            let (row, column) = (index / width, index % width);
            let mut colour = [f32::from(grey(&samples[index])); 3];
            for (which, to) in colours.iter().enumerate() {
                let [west, east] = [index - usize::from(column > 0), index + usize::from(column + 1 < width)];
                let [north, south] = [
                    index - if row > 0 { width } else { 0 },
                    index + if row + 1 < height { width } else { 0 },
                ];
                let here = label(index, which);
                let around = [west, east, north, south].map(|index| label(index, which));
                if here == 0.0 && around == [0.0; 4] {
                    continue;
                }
                let slope = (0.5 * (around[1] - around[0]))
                    .hypot(0.5 * (around[3] - around[2]))
                    .max(0.01);
                // Pixels from the line, positive inside.
                let inside = (here - 0.5) / slope;
                let line = (HALF_LINE + 0.5 - inside.abs()).clamp(0.0, 1.0);
                let cover = (TINT * (inside + 0.5).clamp(0.0, 1.0)).max(line);
                for (channel, to) in colour.iter_mut().zip(to) {
                    *channel += cover * (f32::from(*to) - *channel);
                }
            }
            colour.map(|channel| channel.round() as u8)
        })
        .collect()
}

/// Where a view stands in the picture.
struct Panel {
    x: i32,
    y: i32,
    width: i32,
    height: i32,
    /// From the top of the panel to the top of the image in it.
    inset: i32,
    /// In the upper row.
    first: bool,
}

impl Panel {
    /// Side letters, the view's name and place, ticks where the other planes cut, and a scale.
    fn annotate(&self, canvas: &mut Canvas, view: View, views: &Views, scale: f64, volume: &Volume) {
        let Panel {
            x, y, width, height, ..
        } = *self;
        let (middle_x, middle_y) = (x + width / 2, y + height / 2);
        let [left, right, top, bottom] = view.letters();
        canvas.outlined(left, [x + 12, middle_y - 10], Alignment::Left, &FONT_10X20, LETTER);
        canvas.outlined(
            right,
            [x + width - 12, middle_y - 10],
            Alignment::Right,
            &FONT_10X20,
            LETTER,
        );
        canvas.outlined(top, [middle_x, y + 8], Alignment::Center, &FONT_10X20, LETTER);
        canvas.outlined(
            bottom,
            [middle_x, y + height - 28],
            Alignment::Center,
            &FONT_10X20,
            LETTER,
        );
        if !self.first {
            return;
        }
        canvas.outlined(view.name(), [x + 8, y + 6], Alignment::Left, &FONT_9X15, INK);
        canvas.outlined(
            &place(view, views, volume),
            [x + width - 8, y + 7],
            Alignment::Right,
            &FONT_8X13,
            INK,
        );
        if view == View::Axial {
            let window = format!("W {WIDTH_HU:.0} L {LEVEL_HU:.0}");
            canvas.outlined(&window, [x + 8, y + height - 20], Alignment::Left, &FONT_8X13, INK);
        }
        let bar = (50.0 * scale).round() as i32;
        if bar < width / 2 {
            let [from, under] = [x + width - 10 - bar, y + height - 12];
            canvas.fill([from - 1, under - 1], [bar as usize + 2, 4], BLACK);
            canvas.fill([from, under], [bar as usize, 2], INK);
            canvas.outlined("5 cm", [x + width - 10, under - 16], Alignment::Right, &FONT_8X13, INK);
        }
        self.ticks(canvas, view, views, scale);
    }

    /// Short marks at the edges where the other two planes cut this one.
    fn ticks(&self, canvas: &mut Canvas, view: View, views: &Views, scale: f64) {
        const TICK: i32 = 7;
        let (across, down, turned) = view.axes();
        let column = self.x + ((views.cuts[across] - views.shown[across][0]) * scale).round() as i32;
        let from_top = if turned {
            views.shown[down][1] - views.cuts[down]
        } else {
            views.cuts[down] - views.shown[down][0]
        };
        let row = self.y + self.inset + (from_top * scale).round() as i32;
        for y in [self.y, self.y + self.height - TICK] {
            canvas.fill([column, y], [1, TICK as usize], LETTER);
        }
        for x in [self.x, self.x + self.width - TICK] {
            canvas.fill([x, row], [TICK as usize, 1], LETTER);
        }
    }
}

/// Where a view cuts.
fn place(view: View, views: &Views, volume: &Volume) -> String {
    let at = views.cuts[view.normal()];
    match (view, views.slice) {
        (View::Axial, Some(slice)) => format!("slice {slice} of {}", volume.grid.origins.len()),
        (View::Axial, None) => format!("z {at:.0} mm"),
        (View::Coronal, _) => format!("y {at:.0} mm"),
        (View::Sagittal, _) if views.sagittal_side.is_empty() => format!("x {at:.0} mm"),
        (View::Sagittal, _) => views.sagittal_side.to_owned(),
    }
}

fn header(canvas: &mut Canvas) {
    let x = MARGIN as i32;
    canvas.text("Hilum", [x, 16], Alignment::Left, &FONT_10X20, INK);
    canvas.text("lung segmentation", [x + 60, 16], Alignment::Left, &FONT_10X20, DIM);
    canvas.text(
        "Research use only. Not for diagnosis.",
        [(WIDTH - MARGIN) as i32, 16],
        Alignment::Right,
        &FONT_10X20,
        WARNING,
    );
}

/// Three columns: the series, the lungs, the findings.
fn footer(canvas: &mut Canvas, volume: &Volume, caption: &Caption, top: i32) {
    const LINE: i32 = 20;
    let column = |index: usize| (MARGIN + index * (WIDTH - 2 * MARGIN) / 3) as i32;
    let title = |canvas: &mut Canvas, index: usize, text: &str| {
        canvas.text(text, [column(index), top], Alignment::Left, &FONT_9X15_BOLD, DIM)
    };
    let line = |canvas: &mut Canvas, index: usize, number: i32, text: &str, colour: Colour| {
        canvas.text(
            text,
            [column(index), top + LINE * number],
            Alignment::Left,
            &FONT_9X15,
            colour,
        );
    };
    title(canvas, 0, "Series");
    for (number, text) in series_lines(volume, caption).iter().enumerate() {
        line(canvas, 0, number as i32 + 1, text, INK);
    }

    title(canvas, 1, "Lungs");
    let indented = column(1) + 18;
    let volumes: Vec<(Option<Colour>, String)> = match caption.lungs {
        Lungs::NotFound => vec![(None, "not found".to_owned())],
        Lungs::Together(total) => vec![(Some(BOTH), format!("Both   {total:>6.0} mL"))],
        Lungs::Apart { right_ml, left_ml } => vec![
            (Some(RIGHT), format!("Right  {right_ml:>6.0} mL")),
            (Some(LEFT), format!("Left   {left_ml:>6.0} mL")),
            (None, format!("Total  {:>6.0} mL", right_ml + left_ml)),
        ],
    };
    for (number, (swatch, text)) in volumes.iter().enumerate() {
        let y = top + LINE * (number as i32 + 1);
        if let Some(colour) = swatch {
            canvas.fill([column(1), y + 2], [10, 10], *colour);
        }
        canvas.text(text, [indented, y], Alignment::Left, &FONT_9X15, INK);
    }
    if !caption.model.is_empty() {
        line(canvas, 1, 5, &short(&format!("Model {}", caption.model)), DIM);
    }

    title(canvas, 2, "Findings");
    if caption.findings.is_empty() {
        line(canvas, 2, 1, "none", INK);
    }
    const MOST: usize = 5;
    for (number, text) in caption.findings.iter().take(MOST).enumerate() {
        let more = caption.findings.len() - MOST.min(caption.findings.len());
        let last = number + 1 == MOST && more > 0;
        let text = if last {
            format!("{} and {more} more", short(text))
        } else {
            short(text)
        };
        line(canvas, 2, number as i32 + 1, &text, WARNING);
    }
}

fn series_lines(volume: &Volume, caption: &Caption) -> Vec<String> {
    let grid = &volume.grid;
    let mut lines = vec![
        format!(
            "{} {} x {} x {}",
            caption.modality,
            grid.columns,
            grid.rows,
            grid.origins.len()
        ),
        format!(
            "{:.3} x {:.3} x {:.2} mm",
            grid.spacing_mm[1],
            grid.spacing_mm[0],
            grid.median_step_mm()
        ),
    ];
    if let Some(thickness) = caption.slice_thickness_mm {
        lines.push(format!("slices {thickness:.2} mm thick"));
    }
    if !caption.kernel.is_empty() {
        lines.push(short(&format!("kernel {}", caption.kernel)));
    }
    lines
}

/// At most as much as a column holds, in the characters that the font has.
fn short(text: &str) -> String {
    text.chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .take(46)
        .collect()
}
