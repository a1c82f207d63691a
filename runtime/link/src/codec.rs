//! Frames as bytes: a four-byte big-endian length and one MessagePack value with named fields.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use helix_protocol::link::{Frame, MAX_CHUNK, MAX_CONTROL_FRAME};
use helix_protocol::{Code, Failure};
use serde::Deserialize;

/// The length in front of each frame.
const PREFIX: usize = 4;

/// A frame as it is written.
///
/// Refused with `invalid_request` where it would be longer than [`MAX_CONTROL_FRAME`].
pub(crate) fn encode(frame: &Frame) -> Result<Bytes, Failure> {
    let mut buffer = BytesMut::with_capacity(256).writer();
    buffer.get_mut().put_u32(0);
    rmp_serde::encode::write_named(&mut buffer, frame)
        .map_err(|error| Failure::new(Code::Internal, format!("a frame cannot be written: {error}")))?;
    let mut buffer = buffer.into_inner();
    let length = buffer.len() - PREFIX;
    if length > MAX_CONTROL_FRAME {
        return Err(Failure::new(
            Code::InvalidRequest,
            format!("a message of {length} bytes is too large for the link, which takes {MAX_CONTROL_FRAME}"),
        )
        .hint("send the data as objects, or ask for less at once"));
    }
    let prefix = u32::try_from(length).expect("the largest frame fits into 32 bits");
    buffer[..PREFIX].copy_from_slice(&prefix.to_be_bytes());
    Ok(buffer.freeze())
}

/// Takes the next whole frame out of `buffer`; `None` where more bytes are needed first.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, Failure> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > MAX_CONTROL_FRAME {
        let shown: String = String::from_utf8_lossy(&buffer[..buffer.len().min(80)]).escape_debug().collect();
        return Err(Failure::new(
            Code::ProtocolError,
            format!("a frame says it is {length} bytes long, and {MAX_CONTROL_FRAME} is the limit; it begins \"{shown}\""),
        )
        .hint("if that is readable text, something on the way writes into the connection: a login script must print nothing"));
    }
    if buffer.len() < PREFIX + length {
        buffer.reserve(PREFIX + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(PREFIX);
    let body = buffer.split_to(length);
    parse(&body).map(Some)
}

fn parse(body: &[u8]) -> Result<Frame, Failure> {
    let refuse =
        |reason: String| Failure::new(Code::ProtocolError, format!("a frame of {} bytes is not understood: {reason}", body.len()));
    let mut rest = body;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    let frame = Frame::deserialize(&mut deserializer).map_err(|error| refuse(error.to_string()))?;
    drop(deserializer);
    if !rest.is_empty() {
        return Err(refuse(format!("{} bytes follow its value", rest.len())));
    }
    match &frame {
        Frame::Bulk { data, .. } if data.len() > MAX_CHUNK => {
            Err(refuse(format!("its chunk has {} bytes, and {MAX_CHUNK} is the limit", data.len())))
        }
        _ => Ok(frame),
    }
}
