//! Three-way merges of texts, line by line, with the outcome that git has.
//!
//! Changes of one side alone are taken. Changes of both that touch each other are a conflict, but for what both made alike;
//! conflicts with three or fewer lines between them are shown as one.

use super::changed_lines::{Hunk, Interner, Lines, changed_lines};

/// Lines between two conflicts up to which they are shown as one.
const CLOSE: usize = 3;

/// What stands at conflict markers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'a> {
    pub(crate) ours: &'a str,
    pub(crate) theirs: &'a str,
    /// How many characters longer than seven a marker is: merges within merges can be told apart.
    pub(crate) longer: usize,
}

/// A merged text, and whether it has conflict markers.
pub(crate) struct MergedText {
    pub(crate) text: Vec<u8>,
    pub(crate) conflicted: bool,
}

/// Merges what became of `base` on both sides.
pub(crate) fn merge_lines(base: &[u8], ours: &[u8], theirs: &[u8], labels: Labels<'_>) -> MergedText {
    let mut interner = Interner::default();
    let [base, mine, other] = [base, ours, theirs].map(|text| interner.lines(text));
    let (our_hunks, their_hunks) = (changed_lines(&base.numbers, &mine.numbers), changed_lines(&base.numbers, &other.numbers));
    if our_hunks.is_empty() || their_hunks.is_empty() {
        let text = if our_hunks.is_empty() { theirs } else { ours };
        return MergedText { text: text.to_vec(), conflicted: false };
    }
    let texts = Texts { base, ours: mine, theirs: other };
    let pieces = join_close(refine(&texts, overlay(&texts, &our_hunks, &their_hunks)));
    texts.write(&pieces, labels)
}

/// A text's three versions.
struct Texts<'a> {
    base: Lines<'a>,
    ours: Lines<'a>,
    theirs: Lines<'a>,
}

/// Whose lines stand in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Take {
    Ours,
    Theirs,
    Both,
    /// Both made it alike.
    Alike,
}

/// A place where not all three are equal: from a line to before a line, on each side.
#[derive(Clone, Copy, Debug)]
struct Piece {
    take: Take,
    ours: (usize, usize),
    theirs: (usize, usize),
}

/// Adds a piece; one that touches the last becomes part of it, and a conflict where the two are of different sides.
fn add(pieces: &mut Vec<Piece>, next: Piece) {
    match pieces.last_mut() {
        Some(last) if next.ours.0 <= last.ours.1 || next.theirs.0 <= last.theirs.1 => {
            if last.take != next.take {
                last.take = Take::Both;
            }
            last.ours.1 = next.ours.1;
            last.theirs.1 = next.theirs.1;
        }
        _ => pieces.push(next),
    }
}

/// Walks the changes of both sides in the order of the base.
fn overlay(texts: &Texts<'_>, mine: &[Hunk], other: &[Hunk]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut mine, mut other) = (mine.iter().copied().peekable(), other.iter().copied().peekable());
    // How much further a line is on each side than in the base, behind the changes seen so far.
    let (mut ours_shift, mut theirs_shift) = (0_isize, 0_isize);
    // What goes on from a conflict may seem to begin before the text does; then only its end counts.
    let shifted = |place: usize, by: isize| place.saturating_add_signed(by);
    let growth = |hunk: Hunk| hunk.new_count.cast_signed() - hunk.old_count.cast_signed();
    loop {
        match (mine.peek().copied(), other.peek().copied()) {
            (None, None) => return pieces,
            (Some(a), b) if b.is_none_or(|b| a.old + a.old_count < b.old) => {
                let theirs = (shifted(a.old, theirs_shift), shifted(a.old + a.old_count, theirs_shift));
                add(&mut pieces, Piece { take: Take::Ours, ours: (a.new, a.new + a.new_count), theirs });
                ours_shift += growth(a);
                mine.next();
            }
            (a, Some(b)) if a.is_none_or(|a| b.old + b.old_count < a.old) => {
                let ours = (shifted(b.old, ours_shift), shifted(b.old + b.old_count, ours_shift));
                add(&mut pieces, Piece { take: Take::Theirs, ours, theirs: (b.new, b.new + b.new_count) });
                theirs_shift += growth(b);
                other.next();
            }
            (Some(a), Some(b)) => {
                if !alike(texts, a, b) {
                    add(&mut pieces, both(a, b));
                }
                // Who ends first goes on; a longer one may touch more of the other side's.
                let (a_end, b_end) = (a.old + a.old_count, b.old + b.old_count);
                if a_end >= b_end {
                    theirs_shift += growth(b);
                    other.next();
                }
                if b_end >= a_end {
                    ours_shift += growth(a);
                    mine.next();
                }
            }
            _ => unreachable!("one of the two is there, and neither is before the other"),
        }
    }
}

/// Whether both sides changed the same lines into the same lines.
fn alike(texts: &Texts<'_>, a: Hunk, b: Hunk) -> bool {
    let lines = |lines: &Lines<'_>, hunk: Hunk| lines.numbers[hunk.new..hunk.new + hunk.new_count].to_vec();
    (a.old, a.old_count) == (b.old, b.old_count) && lines(&texts.ours, a) == lines(&texts.theirs, b)
}

/// The conflict of two changes that touch: from where the first begins to where the last ends, on each side. Where it goes on from
/// another conflict, only its end counts.
fn both(a: Hunk, b: Hunk) -> Piece {
    let (start, end) = (a.old.min(b.old), (a.old + a.old_count).max(b.old + b.old_count));
    let side =
        |hunk: Hunk| (hunk.new.saturating_sub(hunk.old - start), hunk.new + hunk.new_count + (end - hunk.old - hunk.old_count));
    Piece { take: Take::Both, ours: side(a), theirs: side(b) }
}

/// Takes out of each conflict what both sides have alike.
fn refine(texts: &Texts<'_>, pieces: Vec<Piece>) -> Vec<Piece> {
    let mut refined = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (ours, theirs) = (piece.ours, piece.theirs);
        if piece.take != Take::Both || ours.0 == ours.1 || theirs.0 == theirs.1 {
            refined.push(piece);
            continue;
        }
        let hunks = changed_lines(&texts.ours.numbers[ours.0..ours.1], &texts.theirs.numbers[theirs.0..theirs.1]);
        if hunks.is_empty() {
            refined.push(Piece { take: Take::Alike, ..piece });
        }
        refined.extend(hunks.into_iter().map(|hunk| Piece {
            take: Take::Both,
            ours: (ours.0 + hunk.old, ours.0 + hunk.old + hunk.old_count),
            theirs: (theirs.0 + hunk.new, theirs.0 + hunk.new + hunk.new_count),
        }));
    }
    refined
}

/// Makes one of conflicts that are close to each other.
fn join_close(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match joined.last_mut() {
            Some(last) if last.take == Take::Both && piece.take == Take::Both && piece.ours.0 - last.ours.1 <= CLOSE => {
                last.ours.1 = piece.ours.1;
                last.theirs.1 = piece.theirs.1;
            }
            _ => joined.push(piece),
        }
    }
    joined
}

impl Texts<'_> {
    fn write(&self, pieces: &[Piece], labels: Labels<'_>) -> MergedText {
        let mut text = Vec::new();
        let (mut at, mut conflicted) = (0, false);
        for piece in pieces {
            if piece.take == Take::Alike {
                continue;
            }
            let ours = &self.ours.texts[piece.ours.0..piece.ours.1];
            let theirs = &self.theirs.texts[piece.theirs.0..piece.theirs.1];
            copy(&mut text, &self.ours.texts[at..piece.ours.0]);
            at = piece.ours.1;
            match piece.take {
                Take::Theirs => copy(&mut text, theirs),
                Take::Ours | Take::Alike => copy(&mut text, ours),
                Take::Both => {
                    conflicted = true;
                    let end: &[u8] = if self.ends_with_cr(piece) { b"\r\n" } else { b"\n" };
                    let marker = |sign: u8| vec![sign; 7 + labels.longer];
                    text.extend([&marker(b'<')[..], b" ", labels.ours.as_bytes(), end].concat());
                    copy_whole(&mut text, ours, end);
                    text.extend([&marker(b'=')[..], end].concat());
                    copy_whole(&mut text, theirs, end);
                    text.extend([&marker(b'>')[..], b" ", labels.theirs.as_bytes(), end].concat());
                }
            }
        }
        copy(&mut text, &self.ours.texts[at..]);
        MergedText { text, conflicted }
    }

    /// Whether lines end with CR LF around a conflict: in ours, in theirs, and where neither tells, in the base.
    fn ends_with_cr(&self, piece: &Piece) -> bool {
        let ours = cr_at(&self.ours.texts, piece.ours.0.saturating_sub(1));
        let theirs = if ours == Some(false) { ours } else { cr_at(&self.theirs.texts, piece.theirs.0.saturating_sub(1)) };
        let found = if theirs == Some(false) { theirs } else { cr_at(&self.base.texts, 0) };
        found == Some(true)
    }
}

/// Whether a line ends with CR LF; a last line without an end is like the one before it. `None` where nothing tells.
fn cr_at(lines: &[&[u8]], place: usize) -> Option<bool> {
    let line = lines.get(place)?;
    match line.ends_with(b"\n") {
        true => Some(line.ends_with(b"\r\n")),
        false => lines.get(place.checked_sub(1)?).map(|line| line.ends_with(b"\r\n")),
    }
}

fn copy(text: &mut Vec<u8>, lines: &[&[u8]]) {
    lines.iter().for_each(|line| text.extend_from_slice(line));
}

/// As [`copy`]; a last line without an end gets one, so that a marker stands on its own line.
fn copy_whole(text: &mut Vec<u8>, lines: &[&[u8]], end: &[u8]) {
    copy(text, lines);
    if lines.last().is_some_and(|line| !line.ends_with(b"\n")) {
        text.extend_from_slice(end);
    }
}

#[cfg(test)]
mod tests;
