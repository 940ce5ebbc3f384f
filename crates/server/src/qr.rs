//! A short text as a QR code, drawn as PNG and as SVG. It does not know what the text means.

use fast_qr::{QRBuilder, QRCode};
use std::fmt::Write;

/// Light modules around the code: a scanner must see where it ends (ISO/IEC 18004, 6.3.8).
const QUIET_ZONE: usize = 4;
/// Pixels of a module.
const SCALE: usize = 10;

/// A code.
pub struct Code(QRCode);

impl Code {
    /// The code of an address of a few dozen characters.
    ///
    /// # Panics
    /// When the text is longer than any code: addresses are ours, so that is a bug.
    pub fn of(text: &str) -> Code {
        Code(QRBuilder::new(text).build().expect("an address of a few dozen characters fits"))
    }

    fn side(&self) -> usize {
        self.0.size + 2 * QUIET_ZONE
    }

    fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = |at: usize| at.checked_sub(QUIET_ZONE).filter(|at| *at < self.0.size);
        inside(x).zip(inside(y)).is_some_and(|(x, y)| self.0[y][x].value())
    }

    /// As SVG, one path for all dark modules.
    pub fn svg(&self) -> String {
        let side = self.side();
        let mut path = String::new();
        for y in 0..side {
            for x in (0..side).filter(|x| self.is_dark(*x, y)) {
                write!(path, "M{x} {y}h1v1h-1z").expect("a text takes everything");
            }
        }
        let size = side * SCALE;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {side} {side}" shape-rendering="crispEdges"><rect width="{side}" height="{side}" fill="#fff"/><path d="{path}" fill="#000"/></svg>"##
        )
    }

    /// As PNG (ISO/IEC 15948): one bit for each pixel, stored without compression.
    pub fn png(&self) -> Vec<u8> {
        let side = self.side() * SCALE;
        let mut rows = Vec::with_capacity((side / 8 + 2) * side);
        for y in 0..side {
            // Each row begins with the filter it was sent through: none.
            rows.push(0);
            for byte in 0..side.div_ceil(8) {
                let bit = |x: usize| x < side && !self.is_dark(x / SCALE, y / SCALE);
                rows.push((0..8).fold(0, |bits, i| bits << 1 | u8::from(bit(byte * 8 + i))));
            }
        }
        let side = (side as u32).to_be_bytes();
        const ONE_BIT_GREY: [u8; 5] = [1, 0, 0, 0, 0];
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(&mut png, b"IHDR", &[&side[..], &side, &ONE_BIT_GREY].concat());
        chunk(&mut png, b"IDAT", &stored(&rows));
        chunk(&mut png, b"IEND", &[]);
        png
    }
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend((data.len() as u32).to_be_bytes());
    let begin = png.len();
    png.extend(kind);
    png.extend(data);
    let sum = crc32(&png[begin..]);
    png.extend(sum.to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951, 3.2.4).
fn stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = data.chunks(usize::from(u16::MAX));
    let last = blocks.len().saturating_sub(1);
    for (index, block) in blocks.enumerate() {
        let length = block.len() as u16;
        stream.push(u8::from(index == last));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream.extend(adler32(data).to_be_bytes());
    stream
}

/// RFC 1950, 8.2.
fn adler32(data: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (a, b) = data.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % MODULUS;
        (a, (b + a) % MODULUS)
    });
    b << 16 | a
}

/// ISO/IEC 15948, annex D.
fn crc32(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_documents() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn a_scanner_reads_what_was_drawn() {
        for text in ["tel:+14155550123", "sms:+266696687", "tel:+123456789012345"] {
            let code = Code::of(text);
            let side = code.side() * SCALE;
            let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| {
                if code.is_dark(x / SCALE, y / SCALE) { 0 } else { 255 }
            });
            let (_, read) = image.detect_grids()[0].decode().unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn a_picture_says_how_large_it_is() {
        let code = Code::of("tel:+14155550123");
        let png = code.png();
        let side = (code.side() * SCALE) as u32;
        assert_eq!((&png[..8], &png[12..16]), (&b"\x89PNG\r\n\x1a\n"[..], &b"IHDR"[..]));
        assert_eq!(png[16..24], [side.to_be_bytes(), side.to_be_bytes()].concat());
        assert!(png.ends_with(b"IEND\xae\x42\x60\x82"));
        assert!(code.svg().starts_with("<svg ") && code.svg().contains(r#"viewBox="0 0 33 33""#));
    }
}
