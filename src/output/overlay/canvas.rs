//! Shapes, text and pixels in, a PNG file out.

use embedded_graphics::Drawable;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};
use embedded_graphics::{Pixel, draw_target::DrawTargetExt};

use super::super::OutputError;

pub(super) type Colour = [u8; 3];

/// An RGB image, 8 bits a channel.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize, background: Colour) -> Self {
        Self {
            width,
            height,
            rgb: background.repeat(width * height),
        }
    }

    /// Fills a rectangle.
    pub(super) fn fill(&mut self, [x, y]: [i32; 2], [width, height]: [usize; 2], colour: Colour) {
        let area = Rectangle::new(Point::new(x, y), Size::new(width as u32, height as u32));
        // Drawing on a canvas cannot fail: its error is `Infallible`.
        let Ok(()) = self.fill_solid(&area, rgb(colour));
    }

    /// Copies an image of `width` pixels a row to a place.
    pub(super) fn image(&mut self, [x, y]: [i32; 2], width: usize, pixels: &[Colour]) {
        for (row, line) in pixels.chunks_exact(width).enumerate() {
            for (column, colour) in line.iter().enumerate() {
                self.set(Point::new(x + column as i32, y + row as i32), *colour);
            }
        }
    }

    /// One line of text. `anchor` is the top left, top middle or top right of the line.
    pub(super) fn text(&mut self, text: &str, [x, y]: [i32; 2], alignment: Alignment, font: &MonoFont, colour: Colour) {
        let style = TextStyleBuilder::new()
            .alignment(alignment)
            .baseline(Baseline::Top)
            .build();
        let Ok(_) =
            Text::with_text_style(text, Point::new(x, y), MonoTextStyle::new(font, rgb(colour)), style).draw(self);
    }

    /// Text that stays readable on any grey: drawn once darker, a pixel to all sides.
    pub(super) fn outlined(
        &mut self,
        text: &str,
        [x, y]: [i32; 2],
        alignment: Alignment,
        font: &MonoFont,
        colour: Colour,
    ) {
        for (dx, dy) in [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)] {
            let mut moved = self.translated(Point::new(dx, dy));
            let style = TextStyleBuilder::new()
                .alignment(alignment)
                .baseline(Baseline::Top)
                .build();
            let Ok(_) = Text::with_text_style(text, Point::new(x, y), MonoTextStyle::new(font, Rgb888::BLACK), style)
                .draw(&mut moved);
        }
        self.text(text, [x, y], alignment, font, colour);
    }

    fn set(&mut self, at: Point, colour: Colour) {
        let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y)) else {
            return;
        };
        if x < self.width && y < self.height {
            self.rgb[(y * self.width + x) * 3..][..3].copy_from_slice(&colour);
        }
    }

    /// The bytes of a PNG file.
    pub(super) fn png(&self) -> Result<Vec<u8>, OutputError> {
        let mut bytes = Vec::with_capacity(self.rgb.len() / 3);
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder.write_header()?.write_image_data(&self.rgb)?;
        Ok(bytes)
    }
}

fn rgb([red, green, blue]: Colour) -> Rgb888 {
    Rgb888::new(red, green, blue)
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(at, colour) in pixels {
            self.set(at, [colour.r(), colour.g(), colour.b()]);
        }
        Ok(())
    }
}
