//! Pictures as the formats write them.

use helix_protocol::ImageSource;

/// A picture as one URL: `data:` where its bytes are here.
pub(crate) fn to_url(image: &ImageSource) -> String {
    match image {
        ImageSource::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
        ImageSource::Url { url } => url.clone(),
    }
}

/// Reads such a URL. The error says what is wrong with it.
pub(crate) fn from_url(url: &str) -> Result<ImageSource, String> {
    let Some(data) = url.strip_prefix("data:") else {
        let fetched = url.starts_with("https://") || url.starts_with("http://");
        return if fetched {
            Ok(ImageSource::Url { url: url.to_owned() })
        } else {
            Err("the image's URL is neither http(s) nor data".to_owned())
        };
    };
    match data.split_once(',').and_then(|(kind, bytes)| Some((kind.strip_suffix(";base64")?, bytes))) {
        Some((media_type, bytes)) => Ok(ImageSource::Base64 { media_type: media_type.to_owned(), data: bytes.to_owned() }),
        None => Err("a data URL is written data:image/png;base64,…".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_survives_its_url_and_nonsense_is_refused() {
        for image in [
            ImageSource::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() },
            ImageSource::Url { url: "https://example.org/a.png".to_owned() },
        ] {
            assert_eq!(from_url(&to_url(&image)), Ok(image));
        }
        for url in ["", "ftp://a", "data:image/png,abc", "data:"] {
            assert!(from_url(url).is_err(), "{url}");
        }
    }
}
