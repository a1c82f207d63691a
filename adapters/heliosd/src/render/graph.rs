//! Histories as lines beside the log, in git's manner: a star for each snapshot, a column for each line of work.

use helix_protocol::SnapshotId;

/// The lines of work that are open above the next snapshot.
#[derive(Default)]
pub struct Graph {
    columns: Vec<SnapshotId>,
}

/// What stands left of a snapshot's lines.
pub struct Rows {
    /// Left of its first line.
    pub star: String,
    /// Lines of their own behind the first one, where lines of work part.
    pub parting: Vec<String>,
    /// Left of its other lines.
    pub rest: String,
    /// Lines of their own in front of the next one, where lines of work join.
    pub joining: Vec<String>,
}

impl Graph {
    /// The next snapshot, which comes after all that were made from it.
    pub fn next(&mut self, id: SnapshotId, parents: &[SnapshotId]) -> Rows {
        let place = self.columns.iter().position(|column| *column == id).unwrap_or_else(|| {
            self.columns.push(id);
            self.columns.len() - 1
        });
        let width = self.columns.len();
        let star = (0..width).map(|column| if column == place { "* " } else { "| " }).collect::<String>();
        // Other columns that wait for the same snapshot join it here.
        let mut parting = Vec::new();
        let mut fresh = 0;
        match parents.split_first() {
            None => {
                self.columns.remove(place);
            }
            Some((first, others)) => {
                self.columns[place] = *first;
                for other in others {
                    if !self.columns.contains(other) {
                        self.columns.insert(place + 1 + fresh, *other);
                        fresh += 1;
                    }
                }
                if fresh > 0 {
                    let mut row = "| ".repeat(place) + "|" + &"\\".repeat(fresh);
                    row.push_str(&" |".repeat(width - place - 1));
                    parting.push(row);
                }
            }
        }
        let rest = "| ".repeat(self.columns.len());
        let rest = if parents.is_empty() { "| ".repeat(place) + "  " + &"| ".repeat(width - place - 1) } else { rest };
        Rows { star, parting, rest, joining: self.join() }
    }

    /// Columns that wait for one snapshot become one.
    fn join(&mut self) -> Vec<String> {
        let mut rows = Vec::new();
        while let Some(place) = (1..self.columns.len()).find(|place| self.columns[..*place].contains(&self.columns[*place])) {
            let target = self.columns.iter().position(|column| *column == self.columns[place]).unwrap_or_default();
            let mut row = String::new();
            for column in 0..self.columns.len() {
                row.push_str(match column {
                    column if column == target => "|",
                    column if column < place && column > target => "_|",
                    column if column < place => "| ",
                    column if column == place => "/ ",
                    _ => "| ",
                });
            }
            rows.push(row.trim_end().to_owned());
            self.columns.remove(place);
        }
        rows
    }
}

impl Rows {
    /// A snapshot's text with its rows left of it; with `gap` an empty line follows.
    pub fn beside(&self, text: &str, gap: bool) -> String {
        let mut rows = String::new();
        let mut parting = self.parting.iter();
        for (number, line) in text.lines().enumerate() {
            let left = if number == 0 { &self.star } else { &self.rest };
            rows.push_str(format!("{left}{line}").trim_end());
            rows.push('\n');
            if number == 0 {
                parting.by_ref().for_each(|row| rows.push_str(&format!("{row}\n")));
            }
        }
        if gap {
            rows.push_str(self.rest.trim_end());
            rows.push('\n');
        }
        self.joining.iter().for_each(|row| rows.push_str(&format!("{row}\n")));
        rows
    }
}

#[cfg(test)]
mod tests {
    use helix_objects::hash;

    use super::*;

    fn id(name: &str) -> SnapshotId {
        SnapshotId(hash(name.as_bytes()))
    }

    #[test]
    fn a_merge_parts_and_joins_again() {
        let mut graph = Graph::default();
        let mut shown = Vec::new();
        for (name, parents) in [("merge", vec!["left", "right"]), ("right", vec!["root"]), ("left", vec!["root"]), ("root", vec![])]
        {
            let parents: Vec<SnapshotId> = parents.into_iter().map(id).collect();
            let Rows { star, parting, joining, .. } = graph.next(id(name), &parents);
            shown.push(format!("{star}{name}"));
            shown.extend(parting);
            shown.extend(joining);
        }
        assert_eq!(shown, ["* merge", "|\\", "| * right", "* | left", "|/", "* root"]);
    }
}
