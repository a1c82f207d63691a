//! What is fed with arbitrary bytes: the reader of patches.

use crate::tools::patch::form::{Change, Hunk, Line, parse};

/// A patch. What is read of it is what is read again of what it says.
pub fn patch(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(changes) = parse(text) {
        let written = written(&changes);
        assert_eq!(parse(&written).as_ref(), Ok(&changes), "{written:?}");
    }
}

fn written(changes: &[Change]) -> String {
    let mut lines = vec!["*** Begin Patch".to_owned()];
    for change in changes {
        match change {
            Change::Add { path, lines: added } => {
                lines.push(format!("*** Add File: {path}"));
                lines.extend(added.iter().map(|line| format!("+{line}")));
            }
            Change::Delete { path } => lines.push(format!("*** Delete File: {path}")),
            Change::Update { path, move_to, hunks } => {
                lines.push(format!("*** Update File: {path}"));
                lines.extend(move_to.iter().map(|to| format!("*** Move to: {to}")));
                hunks.iter().for_each(|hunk| write(hunk, &mut lines));
            }
        }
    }
    lines.push("*** End Patch".to_owned());
    // An end of which as much is taken off as of any: a line may end in one of its characters.
    lines.join("\r\r\n")
}

fn write(hunk: &Hunk, lines: &mut Vec<String>) {
    lines.push("@@".to_owned());
    lines.extend(hunk.anchors.iter().map(|anchor| format!("@@ {anchor}")));
    lines.extend(hunk.lines.iter().map(|line| match line {
        Line::Stays(text) => format!(" {text}"),
        Line::Goes(text) => format!("-{text}"),
        Line::Comes(text) => format!("+{text}"),
    }));
    lines.extend(hunk.at_end.then(|| "*** End of File".to_owned()));
}
