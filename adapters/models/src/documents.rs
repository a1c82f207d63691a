//! Documents as the formats write them. PDFs are what each that has documents takes.

use serde_json::{Map, Value, json};

/// The kind of a document that is carried from format to format.
pub(crate) const PDF: &str = "application/pdf";

/// OpenAI's formats want a name.
const UNNAMED: &str = "document.pdf";

/// A file as OpenAI's formats write it: its name, and its bytes as a URL.
pub(crate) fn to_file(name: &str, media_type: &str, data: &str) -> [(String, Value); 2] {
    let name = if name.is_empty() { UNNAMED } else { name };
    [("filename".to_owned(), json!(name)), ("file_data".to_owned(), json!(format!("data:{media_type};base64,{data}")))]
}

/// Takes the name and the bytes out of such a file, where it is a PDF that comes along.
pub(crate) fn take_file(file: &mut Map<String, Value>) -> Option<(String, String)> {
    if ["file_id", "file_url"].iter().any(|field| file.get(*field).is_some_and(|value| !value.is_null())) {
        return None;
    }
    let (kind, data) = file.get("file_data")?.as_str()?.strip_prefix("data:")?.split_once(',')?;
    if kind != format!("{PDF};base64") {
        return None;
    }
    let data = data.to_owned();
    file.remove("file_data");
    let name = file.remove("filename").and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    Some((name, data))
}
