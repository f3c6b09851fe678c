//! A network of cells with capacities between neighbours in, its minimum cut out: the cheapest set of faces that parts the sources from the sinks.
//!
//! Dinic's algorithm (E. A. Dinic, Soviet Math. Doklady 11, 1970): flow is pushed along shortest paths, one length after another. Capacities are whole numbers, so the
//! result is the same on every machine.

/// No neighbour in this direction.
pub(super) const NONE: u32 = u32::MAX;

/// What a node is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Free,
    Source,
    Sink,
}

/// Nodes with up to six neighbours each; directions 2k and 2k + 1 are opposite.
pub(super) struct Network {
    neighbours: Vec<[u32; 6]>,
    residual: Vec<[u32; 6]>,
    bounds: Vec<Bound>,
}

impl Network {
    pub(super) fn new(bounds: Vec<Bound>) -> Network {
        Network {
            neighbours: vec![[NONE; 6]; bounds.len()],
            residual: vec![[0; 6]; bounds.len()],
            bounds,
        }
    }

    /// Lets so much flow between two nodes, either way; `direction` (0, 2 or 4) leads from the first to the second.
    pub(super) fn connect(&mut self, first: usize, second: usize, direction: usize, capacity: u32) {
        self.neighbours[first][direction] = second as u32;
        self.neighbours[second][direction + 1] = first as u32;
        self.residual[first][direction] = capacity;
        self.residual[second][direction + 1] = capacity;
    }

    /// The sides of the minimum cut nearest to the sources, and the capacity that it cuts. A node that no path joins to a source or a sink stays free.
    pub(super) fn cut(mut self) -> (Vec<Bound>, u64) {
        let nodes = self.bounds.len();
        let gates: Vec<u32> = (0..nodes as u32).filter(|&node| self.is_gate(node)).collect();
        let mut levels = vec![NONE; nodes];
        let mut queue = Vec::new();
        let mut flow = 0;
        while self.find_levels(&gates, &mut levels, &mut queue) {
            let mut next = vec![0u8; nodes];
            for &gate in &gates {
                flow += self.push_from(gate as usize, &levels, &mut next);
            }
        }
        // The last search reached all that the sources still reach.
        let mut sides: Vec<Bound> = self.bounds.clone();
        for (side, &level) in sides.iter_mut().zip(&levels) {
            if level != NONE {
                *side = Bound::Source;
            }
        }
        self.spread_sinks(&mut sides);
        (sides, flow)
    }

    /// A source with a neighbour that is none.
    fn is_gate(&self, node: u32) -> bool {
        let around = self.neighbours[node as usize].iter();
        self.bounds[node as usize] == Bound::Source
            && around
                .filter(|&&neighbour| neighbour != NONE)
                .any(|&neighbour| self.bounds[neighbour as usize] != Bound::Source)
    }

    /// Steps from the sources to each node over what is left; whether a sink is reached.
    fn find_levels(&self, gates: &[u32], levels: &mut [u32], queue: &mut Vec<u32>) -> bool {
        levels.fill(NONE);
        queue.clear();
        queue.extend_from_slice(gates);
        for &gate in gates {
            levels[gate as usize] = 0;
        }
        let mut first = 0;
        let mut reached = false;
        while let Some(&node) = queue.get(first) {
            first += 1;
            let node = node as usize;
            for (&neighbour, &left) in self.neighbours[node].iter().zip(&self.residual[node]) {
                if left == 0 || levels[neighbour as usize] != NONE || self.bounds[neighbour as usize] == Bound::Source {
                    continue;
                }
                levels[neighbour as usize] = levels[node] + 1;
                if self.bounds[neighbour as usize] == Bound::Sink {
                    reached = true;
                } else {
                    queue.push(neighbour);
                }
            }
        }
        reached
    }

    /// Pushes all that goes from one source down the levels; returns how much.
    fn push_from(&mut self, gate: usize, levels: &[u32], next: &mut [u8]) -> u64 {
        let mut path: Vec<(usize, usize)> = Vec::new();
        let mut node = gate;
        let mut flow = 0;
        loop {
            if self.bounds[node] == Bound::Sink {
                let least = path
                    .iter()
                    .map(|&(from, direction)| self.residual[from][direction])
                    .min()
                    .unwrap_or(0);
                flow += u64::from(least);
                let mut full = 0;
                for (step, &(from, direction)) in path.iter().enumerate().rev() {
                    let to = self.neighbours[from][direction] as usize;
                    self.residual[from][direction] -= least;
                    self.residual[to][direction ^ 1] += least;
                    if self.residual[from][direction] == 0 {
                        full = step;
                    }
                }
                node = path[full].0;
                path.truncate(full);
                continue;
            }
            let forward = (next[node] as usize..6).find(|&direction| {
                let neighbour = self.neighbours[node][direction];
                self.residual[node][direction] > 0
                    && levels[neighbour as usize] != NONE
                    && levels[neighbour as usize] == levels[node] + 1
            });
            match forward {
                Some(direction) => {
                    next[node] = direction as u8;
                    path.push((node, direction));
                    node = self.neighbours[node][direction] as usize;
                }
                None => {
                    next[node] = 6;
                    let Some((before, direction)) = path.pop() else {
                        return flow;
                    };
                    next[before] = direction as u8 + 1;
                    node = before;
                }
            }
        }
    }

    /// What hangs together with a sink, and is not the sources', becomes the sinks'.
    fn spread_sinks(&self, sides: &mut [Bound]) {
        let mut open: Vec<u32> = (0..sides.len() as u32)
            .filter(|&node| sides[node as usize] == Bound::Sink)
            .collect();
        while let Some(node) = open.pop() {
            for &neighbour in &self.neighbours[node as usize] {
                if neighbour != NONE && sides[neighbour as usize] == Bound::Free {
                    sides[neighbour as usize] = Bound::Sink;
                    open.push(neighbour);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIDE: usize = 4;

    /// A square of nodes: the left column is the source, the right one the sink.
    fn square(across: &[u32], down: &[u32]) -> Network {
        let bounds = (0..SIDE * SIDE).map(|node| match node % SIDE {
            0 => Bound::Source,
            column if column == SIDE - 1 => Bound::Sink,
            _ => Bound::Free,
        });
        let mut network = Network::new(bounds.collect());
        for node in 0..SIDE * SIDE {
            if node % SIDE + 1 < SIDE {
                network.connect(node, node + 1, 0, across[node]);
            }
            if node / SIDE + 1 < SIDE {
                network.connect(node, node + SIDE, 2, down[node]);
            }
        }
        network
    }

    proptest! {
        #[test]
        fn no_other_cut_is_cheaper(
            across in proptest::collection::vec(0u32..20, SIDE * SIDE),
            down in proptest::collection::vec(0u32..20, SIDE * SIDE),
        ) {
            let price = |sources: &dyn Fn(usize) -> bool| -> u64 {
                let mut price = 0;
                for node in 0..SIDE * SIDE {
                    if node % SIDE + 1 < SIDE && sources(node) != sources(node + 1) {
                        price += u64::from(across[node]);
                    }
                    if node / SIDE + 1 < SIDE && sources(node) != sources(node + SIDE) {
                        price += u64::from(down[node]);
                    }
                }
                price
            };
            let (sides, flow) = square(&across, &down).cut();
            prop_assert_eq!(price(&|node| sides[node] == Bound::Source), flow);
            // All 2^8 ways to share out the inner nodes.
            let inner: Vec<usize> = (0..SIDE * SIDE).filter(|node| (1..SIDE - 1).contains(&(node % SIDE))).collect();
            let cheapest = (0..1u32 << inner.len()).map(|chosen| price(&|node| {
                match inner.iter().position(|&other| other == node) {
                    Some(bit) => chosen >> bit & 1 == 1,
                    None => node % SIDE == 0,
                }
            })).min();
            prop_assert_eq!(Some(flow), cheapest);
        }
    }
}
