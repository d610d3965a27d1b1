//! All exact paths and prefixes of all hosts, as radix trees: one walk down finds everything that matches a path.
//!
//! The walk ends at the deepest node on the path; from there, links lead up through the nodes that hold prefixes, longest first.
//! So a lookup costs what the path has in common with some pattern, never more for more patterns.
//!
//! *Why not a hash map of prefixes*: it hashes the path once for each length to be tried, and a client chooses how many segments a
//! path has; here each byte is looked at once, and the walk ends where no pattern goes on.

/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// Entries in rank order: a part of [`Forest::lists`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    start: u32,
    end: u32,
}

/// What a prefix asks of the rest of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing may follow.
    Exact,
    /// A new segment, or nothing.
    Border,
    /// Anything.
    Raw,
}

#[derive(Debug)]
struct Node {
    /// Where its label is in `labels`.
    label: (u32, u32),
    /// Its children are `first .. first + count`, in the order of their labels' first bytes.
    first: u32,
    count: u32,
    /// The length of all labels from the root to here.
    depth: u32,
    exact: List,
    border: List,
    raw: List,
    /// Itself or the nearest node above that holds prefixes.
    holder: u32,
    /// The nearest node above that holds prefixes.
    above: u32,
}

/// The trees of all hosts.
#[derive(Debug, Default)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    /// For each node the first byte of its label, so that a child is found without touching its siblings.
    keys: Vec<u8>,
    labels: Vec<u8>,
    lists: Vec<u32>,
}

/// Where a walk down has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    node: u32,
    whole: bool,
}

impl Forest {
    /// The deepest node of the tree at `root` whose text `path` starts with.
    ///
    /// **Cost**: the length of that text, and a search among at most 256 bytes for each node on the way; `step` is called for each.
    pub(super) fn descend(&self, root: u32, path: &[u8], mut step: impl FnMut()) -> Found {
        let (mut node, mut at) = (root, 0);
        loop {
            step();
            let Some(&next) = path.get(at) else { return Found { node, whole: true } };
            let parent = &self.nodes[node as usize];
            let (first, count) = (parent.first as usize, parent.count as usize);
            let Some(child) = position(&self.keys[first..first + count], next) else {
                return Found { node, whole: false };
            };
            let (start, end) = self.nodes[first + child].label;
            let label = &self.labels[start as usize..end as usize];
            if !path[at..].starts_with(label) {
                return Found { node, whole: false };
            }
            at += label.len();
            node = (first + child) as u32;
        }
    }

    /// Entries for exactly the path that was walked.
    pub(super) fn exact(&self, found: Found) -> &[u32] {
        if found.whole { self.list(self.nodes[found.node as usize].exact) } else { &[] }
    }

    /// Entries for prefixes of the path that was walked, longest first, and at each length those on segment borders first.
    pub(super) fn prefixes<'a>(&'a self, found: Found, path: &'a [u8]) -> impl Iterator<Item = &'a [u32]> {
        let mut next = self.nodes[found.node as usize].holder;
        let nodes = std::iter::from_fn(move || {
            let node = self.nodes.get(next as usize)?;
            next = node.above;
            Some(node)
        });
        nodes.flat_map(move |node| {
            let on_border = matches!(path.get(node.depth as usize), None | Some(b'/'));
            let border = if on_border { node.border } else { List::default() };
            [self.list(border), self.list(node.raw)]
        })
    }

    /// A list's entries.
    pub(super) fn list(&self, list: List) -> &[u32] {
        &self.lists[list.start as usize..list.end as usize]
    }

    /// Stores entries, which must be in rank order.
    pub(super) fn store(&mut self, entries: &[u32]) -> List {
        debug_assert!(entries.is_sorted());
        let start = self.lists.len() as u32;
        self.lists.extend_from_slice(entries);
        List { start, end: self.lists.len() as u32 }
    }

    /// Adds the tree of one host and returns its root. Entries must come in rank order.
    pub(super) fn plant<'a>(&mut self, entries: impl Iterator<Item = (&'a str, Place, u32)>) -> u32 {
        let mut sapling = Sapling { nodes: vec![Bud::default()] };
        for (path, place, entry) in entries {
            let bud = sapling.insert(path.as_bytes());
            sapling.nodes[bud].entries.push((place, entry));
        }
        let root = self.nodes.len() as u32;
        let mut queue = std::collections::VecDeque::from([(0, NONE, 0)]);
        self.open(&sapling.nodes[0].label);
        let mut at = root as usize;
        // Breadth first, so that the children of a node stand together.
        while let Some((bud, above, depth)) = queue.pop_front() {
            let bud = &sapling.nodes[bud];
            let mut of = |place| {
                let entries: Vec<u32> =
                    bud.entries.iter().filter(|(at, _)| *at == place).map(|(_, entry)| *entry).collect();
                self.store(&entries)
            };
            let (exact, border, raw) = (of(Place::Exact), of(Place::Border), of(Place::Raw));
            let depth = depth + bud.label.len() as u32;
            let holds = bud.entries.iter().any(|(place, _)| *place != Place::Exact);
            let holder = if holds { at as u32 } else { above };
            let (first, count) = (self.nodes.len() as u32, bud.children.len() as u32);
            for &child in &bud.children {
                self.open(&sapling.nodes[child].label);
                queue.push_back((child, holder, depth));
            }
            let node = &mut self.nodes[at];
            *node = Node { label: node.label, first, count, depth, exact, border, raw, holder, above };
            at += 1;
        }
        root
    }

    /// Makes room for a node.
    fn open(&mut self, label: &[u8]) {
        let start = self.labels.len() as u32;
        self.labels.extend_from_slice(label);
        self.keys.push(label.first().copied().unwrap_or(0));
        let none = List::default();
        let label = (start, self.labels.len() as u32);
        let (exact, border, raw) = (none, none, none);
        self.nodes.push(Node { label, first: 0, count: 0, depth: 0, exact, border, raw, holder: NONE, above: NONE });
    }
}

fn position(keys: &[u8], byte: u8) -> Option<usize> {
    // Few children are the rule; a linear search over a handful of bytes has nothing to mispredict.
    if keys.len() <= 8 { keys.iter().position(|&key| key == byte) } else { keys.binary_search(&byte).ok() }
}

/// A tree that still grows.
struct Sapling {
    nodes: Vec<Bud>,
}

#[derive(Default)]
struct Bud {
    label: Vec<u8>,
    /// In the order of their labels' first bytes.
    children: Vec<usize>,
    entries: Vec<(Place, u32)>,
}

impl Sapling {
    /// The node for a path, made where it is missing.
    fn insert(&mut self, path: &[u8]) -> usize {
        let (mut node, mut rest) = (0, path);
        while let Some(&first) = rest.first() {
            let children = &self.nodes[node].children;
            let place = children.binary_search_by_key(&first, |&child| self.nodes[child].label[0]);
            let place = match place {
                Ok(place) => place,
                Err(place) => {
                    let leaf = self.push(Bud { label: rest.to_vec(), ..Bud::default() });
                    self.nodes[node].children.insert(place, leaf);
                    return leaf;
                }
            };
            let child = self.nodes[node].children[place];
            let label = &self.nodes[child].label;
            let shared = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if shared < label.len() {
                self.split(node, place, shared);
            }
            node = self.nodes[node].children[place];
            rest = &rest[shared..];
        }
        node
    }

    /// Puts a node for the first `shared` bytes between a node and its child.
    fn split(&mut self, node: usize, place: usize, shared: usize) {
        let child = self.nodes[node].children[place];
        let tail = self.nodes[child].label.split_off(shared);
        let head = std::mem::replace(&mut self.nodes[child].label, tail);
        let middle = self.push(Bud { label: head, children: vec![child], entries: Vec::new() });
        self.nodes[node].children[place] = middle;
    }

    fn push(&mut self, bud: Bud) -> usize {
        self.nodes.push(bud);
        self.nodes.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(forest: &Forest, root: u32, path: &str) -> (Vec<u32>, Vec<u32>) {
        let found = forest.descend(root, path.as_bytes(), || {});
        (forest.exact(found).to_vec(), forest.prefixes(found, path.as_bytes()).flatten().copied().collect())
    }

    #[test]
    fn prefixes_come_longest_first_and_respect_borders() {
        let mut forest = Forest::default();
        let entries = [
            ("/", Place::Raw, 0),
            ("/api", Place::Border, 1),
            ("/api", Place::Raw, 2),
            ("/api/v1", Place::Border, 3),
            ("/api/v1", Place::Exact, 4),
            ("/apple", Place::Exact, 5),
        ];
        let other = forest.plant([("/", Place::Raw, 9)].into_iter());
        let root = forest.plant(entries.into_iter());
        assert_eq!(found(&forest, root, "/api/v1"), (vec![4], vec![3, 1, 2, 0]));
        assert_eq!(found(&forest, root, "/api/v12"), (vec![], vec![1, 2, 0]));
        assert_eq!(found(&forest, root, "/apix"), (vec![], vec![2, 0]));
        assert_eq!(found(&forest, root, "/apple"), (vec![5], vec![0]));
        assert_eq!(found(&forest, root, "/ap"), (vec![], vec![0]));
        assert_eq!(found(&forest, root, "*"), (vec![], vec![]));
        assert_eq!(found(&forest, other, "/api"), (vec![], vec![9]));
    }

    proptest! {
        #[test]
        fn a_tree_finds_what_a_scan_finds(
            patterns in proptest::collection::vec(("[/ab]{0,5}", 0..3usize), 0..20),
            path in "[/ab]{0,7}",
        ) {
            let places = [Place::Exact, Place::Border, Place::Raw];
            let mut forest = Forest::default();
            let entries = patterns.iter().enumerate();
            let root = forest.plant(entries.map(|(at, (text, place))| (text.as_str(), places[*place], at as u32)));
            let (exact, prefixes) = found(&forest, root, &path);
            let all = |want: &dyn Fn(&str, Place) -> bool| {
                let matching = patterns.iter().enumerate().filter(|(_, (text, place))| want(text, places[*place]));
                matching.map(|(at, _)| at as u32).collect::<Vec<_>>()
            };
            prop_assert_eq!(exact, all(&|text, place| place == Place::Exact && text == path));
            let mut expected = all(&|text, place| match path.strip_prefix(text) {
                Some(rest) => place == Place::Raw || place == Place::Border && (rest.is_empty() || rest.starts_with('/')),
                None => false,
            });
            // Longest first; on a segment border first; then as given.
            expected.sort_by_key(|&at| (std::cmp::Reverse(patterns[at as usize].0.len()), patterns[at as usize].1, at));
            prop_assert_eq!(prefixes, expected);
        }
    }
}
