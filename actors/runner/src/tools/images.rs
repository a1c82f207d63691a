//! Pictures that a model can look at.

use helix_protocol::{Code, Failure, ImageSource, ToolOutcome};

/// The largest picture, in bytes: as base64 it is 5 MB, the most that every provider takes.
const LARGEST: usize = 3_750_000;

/// The picture in `bytes`; `None` where they are none. Refused where it is too large to be shown.
pub fn picture(path: &str, bytes: &[u8]) -> Result<Option<ToolOutcome>, Failure> {
    let Some(media_type) = media_type(bytes) else { return Ok(None) };
    if bytes.len() > LARGEST {
        let message = format!("{path} is a picture of {} bytes, and {LARGEST} is the most that can be shown", bytes.len());
        return Err(Failure::new(Code::FileTooLarge, message).hint("make a smaller copy of it with a command and read that"));
    }
    let image = ImageSource::Base64 { media_type: media_type.to_owned(), data: base64(bytes) };
    let text = format!("{path} is shown here ({media_type}, {} bytes)", bytes.len());
    Ok(Some(ToolOutcome { images: vec![image], ..ToolOutcome::ok(text) }))
}

/// By the first bytes: names lie.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 0x3f;
            text.push(if at <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // The vectors of RFC 4648, section 10.
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        let made: Vec<String> = (0..=6).map(|length| base64(&b"foobar"[..length])).collect();
        assert_eq!(made, vectors);
    }

    #[test]
    fn a_picture_is_known_by_its_first_bytes_and_a_large_one_is_refused() {
        let kinds = [
            (&b"\x89PNG\r\n\x1a\n...."[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"GIF89a..", Some("image/gif")),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 ", Some("image/webp")),
            (b"RIFF\x01\x02\x03\x04WAVE", None),
            (b"hello", None),
        ];
        for (bytes, expected) in kinds {
            assert_eq!(media_type(bytes), expected, "{bytes:?}");
        }
        let shown = picture("a.gif", b"GIF89a..").expect("small").expect("a picture");
        let expected = ImageSource::Base64 { media_type: "image/gif".into(), data: "R0lGODlhLi4=".into() };
        assert_eq!((shown.content.as_str(), shown.images), ("a.gif is shown here (image/gif, 8 bytes)", vec![expected]));
        let large = [&b"GIF89a"[..], &vec![0; LARGEST]].concat();
        assert_eq!(picture("a.gif", &large).expect_err("too large").code, Code::FileTooLarge);
    }
}
