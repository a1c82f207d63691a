//! Which lines of two texts differ: the histogram method, with changes slid to where git has them.
//!
//! The longest run of equal lines that has the rarest line in it stays; what is before and behind it is compared the same way. A
//! group of changed lines can often stand in several places (one of two equal lines was added: which?); it is slid next to the
//! other side's changes where that is possible, else to the end.

use std::collections::HashMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Lines that occur more often than this say little about what belongs together.
const COMMON: usize = 64;

/// Lines as numbers: equal lines have equal numbers.
#[derive(Default)]
pub(super) struct Interner<'a> {
    numbers: HashMap<&'a [u8], u32>,
}

impl<'a> Interner<'a> {
    /// The lines of a text, each with its end.
    pub(super) fn lines(&mut self, text: &'a [u8]) -> Lines<'a> {
        let texts: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let numbers = texts
            .iter()
            .map(|line| {
                let next = u32::try_from(self.numbers.len()).expect("texts are shorter than 4 GiB");
                *self.numbers.entry(line).or_insert(next)
            })
            .collect();
        Lines { texts, numbers }
    }
}

/// A text's lines.
pub(super) struct Lines<'a> {
    pub(super) texts: Vec<&'a [u8]>,
    pub(super) numbers: Vec<u32>,
}

/// Some lines of one text that stand for some of another. Both begin behind equal lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hunk {
    pub(crate) old: usize,
    pub(crate) old_count: usize,
    pub(crate) new: usize,
    pub(crate) new_count: usize,
}

/// The hunks in which two texts differ, in order.
pub(super) fn changed_lines(old: &[u32], new: &[u32]) -> Vec<Hunk> {
    let mut changed = Changed { old: vec![false; old.len()], new: vec![false; new.len()] };
    Comparison { old, new }.run((0, old.len()), (0, new.len()), &mut changed);
    slide(old, &mut changed.old, &changed.new);
    slide(new, &mut changed.new, &changed.old);
    hunks(&changed)
}

/// Which lines have no partner on the other side.
struct Changed {
    old: Vec<bool>,
    new: Vec<bool>,
}

fn hunks(changed: &Changed) -> Vec<Hunk> {
    let (mut hunks, mut at) = (Vec::new(), (0, 0));
    let run = |flags: &[bool], from: usize| flags[from..].iter().take_while(|changed| **changed).count();
    while at.0 < changed.old.len() || at.1 < changed.new.len() {
        let (old_count, new_count) = (run(&changed.old, at.0), run(&changed.new, at.1));
        if old_count + new_count > 0 {
            hunks.push(Hunk { old: at.0, old_count, new: at.1, new_count });
        }
        // Behind a group there is a pair of equal lines, or the end of both.
        at = (at.0 + old_count + 1, at.1 + new_count + 1);
    }
    hunks
}

type Span = (usize, usize);

struct Comparison<'a> {
    old: &'a [u32],
    new: &'a [u32],
}

/// A run of equal lines: where it begins on both sides, and how long it is.
#[derive(Clone, Copy, Default)]
struct Run {
    old: usize,
    new: usize,
    length: usize,
}

impl Comparison<'_> {
    fn run(&self, old: Span, new: Span, changed: &mut Changed) {
        let mut open = vec![(old, new)];
        while let Some((old, new)) = open.pop() {
            match self.best_run(old, new) {
                Found::Nothing => {
                    changed.old[old.0..old.1].fill(true);
                    changed.new[new.0..new.1].fill(true);
                }
                Found::OnlyCommon => self.shortest_script(old, new, changed),
                Found::Run(run) => {
                    open.push(((old.0, run.old), (new.0, run.new)));
                    open.push(((run.old + run.length, old.1), (run.new + run.length, new.1)));
                }
            }
        }
    }

    /// The run that everything else is compared around.
    fn best_run(&self, old: Span, new: Span) -> Found {
        if old.0 == old.1 || new.0 == new.1 {
            return Found::Nothing;
        }
        let places = Places::of(self.old, old);
        let (mut best, mut rarest, mut shared) = (Run::default(), COMMON + 1, false);
        let mut next = new.0;
        while next < new.1 {
            let (line, here) = (self.new[next], next);
            next += 1;
            let Some(occurrences) = places.by_line.get(&line) else { continue };
            shared = true;
            if occurrences.len() > rarest {
                continue;
            }
            let mut behind = 0;
            for place in occurrences {
                // What the run before has in it already needs no second look.
                if *place < behind {
                    continue;
                }
                let (run, count) = self.grow((old, new), (*place, here), &places, occurrences.len());
                next = next.max(run.new + run.length);
                behind = run.old + run.length;
                if best.length < run.length || count < rarest {
                    (best, rarest) = (run, count);
                }
            }
        }
        match (best.length, shared) {
            // Every line that both have occurs so often that a run of such lines says nothing.
            (_, true) if rarest > COMMON => Found::OnlyCommon,
            (0, _) => Found::Nothing,
            _ => Found::Run(best),
        }
    }

    /// The longest run through a pair of equal lines, and how often its rarest line occurs.
    fn grow(&self, (old, new): (Span, Span), (place, here): (usize, usize), places: &Places, count: usize) -> (Run, usize) {
        let mut rarest = count;
        let mut note = |line: u32| rarest = rarest.min(places.by_line[&line].len());
        let mut before = 0;
        while place - before > old.0 && here - before > new.0 && self.old[place - before - 1] == self.new[here - before - 1] {
            before += 1;
            note(self.old[place - before]);
        }
        let mut behind = 1;
        while place + behind < old.1 && here + behind < new.1 && self.old[place + behind] == self.new[here + behind] {
            note(self.old[place + behind]);
            behind += 1;
        }
        (Run { old: place - before, new: here - before, length: before + behind }, rarest)
    }

    /// For lines that are all common: the fewest changes.
    fn shortest_script(&self, old: Span, new: Span, changed: &mut Changed) {
        for op in capture_diff_slices(Algorithm::Myers, &self.old[old.0..old.1], &self.new[new.0..new.1]) {
            if !matches!(op, DiffOp::Equal { .. }) {
                let (a, b) = (op.old_range(), op.new_range());
                changed.old[old.0 + a.start..old.0 + a.end].fill(true);
                changed.new[new.0 + b.start..new.0 + b.end].fill(true);
            }
        }
    }
}

enum Found {
    Run(Run),
    /// There are equal lines, but only such as occur very often.
    OnlyCommon,
    Nothing,
}

/// Where each line of a span is.
struct Places {
    by_line: HashMap<u32, Vec<usize>>,
}

impl Places {
    fn of(lines: &[u32], span: Span) -> Self {
        let mut by_line: HashMap<u32, Vec<usize>> = HashMap::new();
        for (place, line) in lines.iter().enumerate().take(span.1).skip(span.0) {
            by_line.entry(*line).or_default().push(place);
        }
        Self { by_line }
    }
}

/// A group of changed lines next to each other; empty between two lines that are both unchanged.
#[derive(Clone, Copy)]
struct Group {
    start: usize,
    end: usize,
}

impl Group {
    fn first(flags: &[bool]) -> Self {
        Self::from(flags, 0)
    }

    fn from(flags: &[bool], start: usize) -> Self {
        Self { start, end: start + flags[start..].iter().take_while(|changed| **changed).count() }
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn next(self, flags: &[bool]) -> Option<Self> {
        (self.end < flags.len()).then(|| Self::from(flags, self.end + 1))
    }

    fn previous(self, flags: &[bool]) -> Option<Self> {
        let end = self.start.checked_sub(1)?;
        let length = flags[..end].iter().rev().take_while(|changed| **changed).count();
        Some(Self { start: end - length, end })
    }

    /// One line up, where the line before it equals its last. It takes in a group it comes to touch.
    fn slide_up(&mut self, lines: &[u32], flags: &mut [bool]) -> bool {
        if self.start == 0 || lines[self.start - 1] != lines[self.end - 1] {
            return false;
        }
        self.start -= 1;
        self.end -= 1;
        flags[self.start] = true;
        flags[self.end] = false;
        self.start -= flags[..self.start].iter().rev().take_while(|changed| **changed).count();
        true
    }

    /// One line down, where the line behind it equals its first.
    fn slide_down(&mut self, lines: &[u32], flags: &mut [bool]) -> bool {
        if self.end == lines.len() || lines[self.start] != lines[self.end] {
            return false;
        }
        flags[self.start] = false;
        flags[self.end] = true;
        self.start += 1;
        self.end += 1;
        self.end += flags[self.end..].iter().take_while(|changed| **changed).count();
        true
    }
}

/// Slides each group of one side: next to a group of the other side if it can come to one (the last of them), else down to the end
/// of where it can go. Groups of both sides are walked in step: between two unchanged lines there is one group on each side.
fn slide(lines: &[u32], flags: &mut [bool], other: &[bool]) {
    const IN_STEP: &str = "both sides have as many unchanged lines";
    let (mut group, mut beside) = (Group::first(flags), Group::first(other));
    loop {
        if !group.is_empty() {
            let (mut matching, mut highest);
            loop {
                let size = group.end - group.start;
                while group.slide_up(lines, flags) {
                    beside = beside.previous(other).expect(IN_STEP);
                }
                highest = group.end;
                matching = !beside.is_empty();
                while group.slide_down(lines, flags) {
                    beside = beside.next(other).expect(IN_STEP);
                    matching |= !beside.is_empty();
                }
                // A group that took in another one has more room.
                if size == group.end - group.start {
                    break;
                }
            }
            if group.end != highest && matching {
                while beside.is_empty() {
                    let moved = group.slide_up(lines, flags);
                    debug_assert!(moved, "it came down this way");
                    beside = beside.previous(other).expect(IN_STEP);
                }
            }
        }
        match (group.next(flags), beside.next(other)) {
            (Some(next), Some(next_beside)) => (group, beside) = (next, next_beside),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Hunk, changed_lines};

    fn hunk(old: usize, old_count: usize, new: usize, new_count: usize) -> Hunk {
        Hunk { old, old_count, new, new_count }
    }

    #[test]
    fn a_repeated_line_that_was_added_is_the_last_one() {
        assert_eq!(changed_lines(&[1, 2, 3], &[1, 2, 2, 3]), [hunk(2, 0, 2, 1)]);
        assert_eq!(changed_lines(&[1, 2, 2, 3], &[1, 2, 3]), [hunk(2, 1, 2, 0)]);
        assert_eq!(changed_lines(&[1, 2], &[1, 2]), []);
        assert_eq!(changed_lines(&[], &[1]), [hunk(0, 0, 0, 1)]);
    }

    #[test]
    fn rare_lines_decide_what_belongs_together() {
        // A moved function: the braces (9) are everywhere, the names (1, 2) are not.
        let (old, new) = ([1, 9, 9, 2, 9, 9], [2, 9, 9, 1, 9, 9]);
        let kept: usize = 6 - changed_lines(&old, &new).iter().map(|hunk| hunk.old_count).sum::<usize>();
        assert_eq!(kept, 3);
    }

    proptest! {
        #[test]
        fn the_hunks_make_the_new_text_of_the_old_one(
            old in prop::collection::vec(0_u32..5, 0..30), new in prop::collection::vec(0_u32..5, 0..30),
        ) {
            let (mut made, mut at) = (Vec::new(), 0);
            for hunk in changed_lines(&old, &new) {
                prop_assert!(hunk.old_count + hunk.new_count > 0);
                made.extend_from_slice(&old[at..hunk.old]);
                prop_assert_eq!(made.len(), hunk.new);
                made.extend_from_slice(&new[hunk.new..hunk.new + hunk.new_count]);
                at = hunk.old + hunk.old_count;
            }
            made.extend_from_slice(&old[at..]);
            prop_assert_eq!(made, new);
        }

        #[test]
        fn many_common_lines_are_compared_too(
            old in prop::collection::vec(0_u32..2, 150..200), new in prop::collection::vec(0_u32..2, 150..200),
        ) {
            let removed: usize = changed_lines(&old, &new).iter().map(|hunk| hunk.old_count).sum();
            prop_assert!(removed < old.len(), "something of both is equal");
        }
    }
}
