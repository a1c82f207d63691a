//! Dependencies between tasks: a circle is refused before it is recorded.

use std::collections::{HashMap, HashSet};

use helix_protocol::TaskId;

/// Finds a circle that is reached from `start` in `edges` (a task → the tasks it waits for), and names it in order, the first
/// task again at its end.
pub fn circle(start: TaskId, edges: &HashMap<TaskId, Vec<TaskId>>) -> Option<Vec<TaskId>> {
    let mut done = HashSet::new();
    let mut path: Vec<(TaskId, usize)> = vec![(start, 0)];
    while let Some((task, next)) = path.last().copied() {
        let Some(&wanted) = edges.get(&task).and_then(|wanted| wanted.get(next)) else {
            done.insert(task);
            path.pop();
            continue;
        };
        path.last_mut().expect("the loop saw it").1 += 1;
        if let Some(from) = path.iter().position(|(seen, _)| *seen == wanted) {
            let mut circle: Vec<TaskId> = path[from..].iter().map(|(task, _)| *task).collect();
            circle.push(wanted);
            return Some(circle);
        }
        if !done.contains(&wanted) {
            path.push((wanted, 0));
        }
    }
    None
}

/// The circle as people read it: `a1b2c3d4 → …`.
pub fn in_words(circle: &[TaskId]) -> String {
    circle.iter().map(TaskId::short).collect::<Vec<_>>().join(" → ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn task(number: u128) -> TaskId {
        TaskId(uuid(number))
    }

    fn uuid(number: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(number)
    }

    fn graph(edges: &[(u128, u128)]) -> HashMap<TaskId, Vec<TaskId>> {
        let mut graph: HashMap<TaskId, Vec<TaskId>> = HashMap::new();
        for (from, to) in edges {
            graph.entry(task(*from)).or_default().push(task(*to));
        }
        graph
    }

    #[test]
    fn a_circle_is_named_in_order_and_the_way_to_it_is_not() {
        let found = circle(task(0), &graph(&[(0, 1), (1, 2), (2, 3), (3, 1)]));
        assert_eq!(found, Some(vec![task(1), task(2), task(3), task(1)]));
        assert_eq!(in_words(&[task(1), task(1)]), "00000001 → 00000001");
    }

    #[test]
    fn a_task_that_waits_for_itself_is_a_circle() {
        assert_eq!(circle(task(7), &graph(&[(7, 7)])), Some(vec![task(7), task(7)]));
    }

    proptest! {
        #[test]
        fn edges_that_all_lead_to_older_tasks_have_no_circle(edges in prop::collection::vec((1_u128..40, 0_u128..40), 0..200)) {
            let down: Vec<_> = edges.into_iter().map(|(from, to)| (from, to % from)).collect();
            prop_assert_eq!(circle(task(39), &graph(&down)), None);
        }

        #[test]
        fn what_is_named_is_a_circle_of_the_graph(edges in prop::collection::vec((0_u128..12, 0_u128..12), 0..40)) {
            let graph = graph(&edges);
            if let Some(found) = circle(task(0), &graph) {
                prop_assert_eq!(found.first(), found.last());
                for pair in found.windows(2) {
                    prop_assert!(graph[&pair[0]].contains(&pair[1]));
                }
            }
        }
    }
}
