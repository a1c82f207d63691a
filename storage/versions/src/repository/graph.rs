//! The history as a drawing: one lane for each line of work, beside the snapshots from the newest down.

use helix_protocol::SnapshotId;

/// Draws a history row by row. Snapshots come as [`Order::Topological`](super::Order::Topological) gives them.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// What each lane comes to next.
    lanes: Vec<SnapshotId>,
}

/// What stands beside one snapshot. All of it is padded to one width, so that what follows it is aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphRow {
    /// Beside the first line: a star in its lane.
    pub node: String,
    /// Beside each further line of the same snapshot.
    pub beside: String,
    /// Lines of their own behind it: where lanes part and come together.
    pub after: Vec<String>,
}

impl Graph {
    /// The row of the next snapshot.
    pub fn row(&mut self, id: SnapshotId, parents: &[SnapshotId]) -> GraphRow {
        let lane = self.lanes.iter().position(|lane| *lane == id).unwrap_or_else(|| {
            self.lanes.push(id);
            self.lanes.len() - 1
        });
        let before = self.lanes.len();
        let mut parted = self.lanes.clone();
        parted.splice(lane..=lane, parents.iter().copied());
        let width = 2 * before.max(parted.len());
        let mut rows = Rows { width, texts: Vec::new() };
        let star = match parents.len() {
            0..=2 => "*".to_owned(),
            // Many lines come together: the star has an arm for each but two.
            count => format!("*{}.", "-".repeat(2 * (count - 2) - 1)),
        };
        let node = rows.pad(&format!("{}{star} {}", "| ".repeat(lane), "| ".repeat(before - lane - 1)));
        let beside = match parents.len() {
            0 => rows.pad(&format!("{}  {}", "| ".repeat(lane), "| ".repeat(before - lane - 1))),
            _ => rows.pad(&"| ".repeat(before)),
        };
        if parents.len() > 1 {
            let added = parents.len() - 1;
            rows.add(&format!("{}|{}{}", "| ".repeat(lane), "\\ ".repeat(added), "\\ ".repeat(before - lane - 1)));
        }
        // Where lanes are now: behind a root there is a gap.
        let gap = usize::from(parents.is_empty());
        let places: Vec<usize> = (0..parted.len()).map(|place| if place < lane { place } else { place + gap }).collect();
        self.lanes = rows.join(&parted, places);
        GraphRow { node, beside, after: rows.texts }
    }
}

struct Rows {
    width: usize,
    texts: Vec<String>,
}

impl Rows {
    fn pad(&self, text: &str) -> String {
        format!("{:<width$}", text.trim_end(), width = self.width)
    }

    fn add(&mut self, text: &str) {
        let padded = self.pad(text);
        self.texts.push(padded);
    }

    /// Draws lanes going to the left until those that come to the same snapshot are one and there is no gap.
    fn join(&mut self, lanes: &[SnapshotId], mut places: Vec<usize>) -> Vec<SnapshotId> {
        let mut joined: Vec<SnapshotId> = Vec::with_capacity(lanes.len());
        let targets: Vec<usize> = lanes
            .iter()
            .map(|lane| {
                joined.iter().position(|other| other == lane).unwrap_or_else(|| {
                    joined.push(*lane);
                    joined.len() - 1
                })
            })
            .collect();
        while places != targets {
            let mut row = vec![b' '; self.width.max(1)];
            for (place, target) in places.iter_mut().zip(&targets) {
                if *place > *target {
                    row[2 * *place - 1] = b'/';
                    *place -= 1;
                } else {
                    row[2 * *place] = b'|';
                }
            }
            self.add(&String::from_utf8_lossy(&row));
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use helix_objects::hash;
    use helix_protocol::SnapshotId;

    use super::Graph;

    /// Draws snapshots given as a name and its parents' names.
    fn draw(history: &[(&str, &[&str])]) -> String {
        let id = |name: &&str| SnapshotId(hash(name.as_bytes()));
        let (mut graph, mut drawn) = (Graph::default(), String::new());
        for (name, parents) in history {
            let row = graph.row(id(name), &parents.iter().map(id).collect::<Vec<_>>());
            drawn += &format!("{}{name}\n", row.node);
            for line in row.after {
                drawn += &format!("{}\n", line.trim_end());
            }
        }
        drawn
    }

    #[test]
    fn lanes_part_at_a_merge_and_come_together_where_lines_began() {
        let history: [(&str, &[&str]); 5] =
            [("merge", &["main", "side"]), ("side", &["base"]), ("main", &["base"]), ("base", &["root"]), ("root", &[])];
        let expected = "*   merge\n|\\\n| * side\n* | main\n|/\n* base\n* root\n";
        assert_eq!(draw(&history), expected);
    }

    #[test]
    fn several_heads_and_roots_have_lanes_of_their_own() {
        let history: [(&str, &[&str]); 4] = [("a", &["x"]), ("b", &["x"]), ("c", &[]), ("x", &[])];
        assert_eq!(draw(&history), "* a\n| * b\n|/\n| * c\n* x\n");
    }

    #[test]
    fn a_lane_goes_past_another_to_where_it_belongs() {
        let history: [(&str, &[&str]); 5] = [("a", &["x"]), ("b", &["y"]), ("c", &["x"]), ("y", &["x"]), ("x", &[])];
        assert_eq!(draw(&history), "* a\n| * b\n| | * c\n| |/\n|/|\n| * y\n|/\n* x\n");
    }

    #[test]
    fn many_lines_that_come_together_have_an_arm_each() {
        let history: [(&str, &[&str]); 5] = [("m", &["a", "b", "c"]), ("c", &["x"]), ("b", &["x"]), ("a", &["x"]), ("x", &[])];
        assert_eq!(draw(&history), "*-.   m\n|\\ \\\n| | * c\n| * | b\n| |/\n* | a\n|/\n* x\n");
    }
}
