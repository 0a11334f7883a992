//! The commits that two branches do not share, and which of them are others in disguise: squashes, copies, reverts.

use std::collections::{HashMap, HashSet};

/// What `rev-list` says of each commit; [`Graph::parse`] reads it.
pub const FORMAT: &str = "--format=%m%H %T %P%x00%s";

/// Which branch a commit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On the target only.
    Target,
    /// On the source only.
    Source,
    /// On both, and a parent of one that is not.
    Both,
}

/// A commit.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its name, in hex.
    pub id: String,
    /// The name of its content.
    pub tree: String,
    /// The first line of its message.
    pub subject: String,
    side: Side,
    parents: Vec<String>,
}

impl Commit {
    fn parse(line: &str) -> Option<Commit> {
        let (names, subject) = line.split_once('\0')?;
        let side = match names.get(..1)? {
            "<" => Side::Target,
            ">" => Side::Source,
            "-" => Side::Both,
            _ => return None,
        };
        let mut names = names[1..].split_whitespace().map(String::from);
        let (id, tree) = (names.next()?, names.next()?);
        Some(Commit { id, tree, subject: subject.into(), side, parents: names.collect() })
    }
}

/// The commits that only one of two branches has, and the last that both have.
#[derive(Debug, Default)]
pub struct Graph {
    commits: HashMap<String, Commit>,
    /// Names, children before their parents.
    order: Vec<String>,
}

/// A commit of the target that brought work of the source without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Squash {
    /// The commit on the target.
    pub commit: String,
    /// The last commit of the source whose work it has.
    pub up_to: String,
    /// How many commits of the source are in it.
    pub contains: usize,
    /// What is equal: the content (`tree`) or the change (`patch-id`).
    pub by: &'static str,
    /// The commit on the target that took it back.
    pub reverted_by: Option<String>,
}

/// Names of changes, equal for equal changes, by the commit that makes them; that of a taken back change by the tree
/// that it starts from.
pub type PatchIds = HashMap<String, String>;

impl Graph {
    /// Reads the output of `rev-list --topo-order --left-right --boundary` in [`FORMAT`].
    pub fn parse(listed: &str) -> Graph {
        let mut graph = Graph::default();
        for commit in listed.lines().filter_map(Commit::parse) {
            graph.order.push(commit.id.clone());
            graph.commits.insert(commit.id.clone(), commit);
        }
        graph
    }

    /// How many commits one branch has and the other has not.
    pub fn len(&self) -> usize {
        self.commits.values().filter(|commit| commit.side != Side::Both).count()
    }

    /// The commit of that name, if it is one of these.
    pub fn get(&self, id: &str) -> Option<&Commit> {
        self.commits.get(id)
    }

    /// Commits of one side that are no merges, newest first.
    pub fn of(&self, side: Side) -> impl Iterator<Item = &Commit> {
        self.order.iter().map(|id| &self.commits[id]).filter(move |one| one.side == side && one.parents.len() < 2)
    }

    /// The first parent.
    pub fn parent(&self, id: &str) -> Option<&Commit> {
        self.get(self.get(id)?.parents.first()?)
    }

    /// The commit and everything before it that only its own side has.
    pub fn past(&self, id: &str) -> HashSet<&str> {
        let mut past = HashSet::new();
        let mut open: Vec<&str> = vec![id];
        while let Some(id) = open.pop() {
            let Some(commit) = self.get(id).filter(|commit| commit.side != Side::Both) else { continue };
            if past.insert(commit.id.as_str()) {
                open.extend(commit.parents.iter().map(String::as_str));
            }
        }
        past
    }

    /// The target as its first parents tell it, oldest first.
    fn main_line(&self, tip: &str) -> Vec<&Commit> {
        let chain = std::iter::successors(self.get(tip), |commit| self.parent(&commit.id));
        let mut line: Vec<&Commit> = chain.take_while(|commit| commit.side == Side::Target).collect();
        line.reverse();
        line
    }

    /// Commits of the target that may be squashes, oldest first: those that somebody made in place of a merge.
    pub fn candidates(&self, tip: &str) -> Vec<&Commit> {
        let changes = |commit: &&&Commit| self.parent(&commit.id).is_some_and(|parent| parent.tree != commit.tree);
        self.main_line(tip).iter().filter(|commit| commit.parents.len() == 1).filter(changes).copied().collect()
    }

    /// Commits of the source that do not belong to `base` or what is before it, newest first; merges too.
    pub fn beyond(&self, base: &str) -> Vec<&Commit> {
        let past = self.past(base);
        let source = self.order.iter().map(|id| &self.commits[id]).filter(|commit| commit.side == Side::Source);
        source.filter(|commit| !past.contains(commit.id.as_str())).collect()
    }

    /// Which of `open` has the work of `candidate` when everything up to `base` is there; how that is seen.
    pub fn match_of<'a>(
        &self,
        candidate: &Commit,
        base: &str,
        open: &[&'a Commit],
        ids: &PatchIds,
    ) -> Option<(&'a Commit, &'static str)> {
        if let Some(same) = open.iter().find(|one| one.tree == candidate.tree) {
            return Some((same, "tree"));
        }
        let id = ids.get(&candidate.id)?;
        // A change alone is the change since `base` for the first commit after it.
        let follows = |one: &Commit| one.parents.first().is_some_and(|parent| parent == base);
        open.iter().find(|one| follows(one) && ids.get(&one.id) == Some(id)).map(|same| (*same, "patch-id"))
    }

    /// The commit of the target that took `candidate` back.
    pub fn revert_of(&self, candidate: &Commit, tip: &str, ids: &PatchIds) -> Option<String> {
        let before = self.parent(&candidate.id)?;
        let line = self.main_line(tip);
        let mut later = line.iter().skip_while(|one| one.id != candidate.id).skip(1);
        let back = ids.get(&candidate.tree);
        let is_back = |one: &Commit| one.tree == before.tree || (back.is_some() && ids.get(&one.id) == back);
        later.find(|one| is_back(one)).map(|one| one.id.clone())
    }

    /// Commits of the target, newest first, that are neither squashes nor taken back nor copies of a commit of the
    /// source.
    pub fn only_on_target(&self, squashes: &[Squash], ids: &PatchIds) -> Vec<&Commit> {
        let known: HashSet<&str> = squashes
            .iter()
            .flat_map(|squash| [Some(squash.commit.as_str()), squash.reverted_by.as_deref()])
            .flatten()
            .collect();
        let source: HashSet<&String> = self.of(Side::Source).filter_map(|one| ids.get(&one.id)).collect();
        let copied = |one: &Commit| ids.get(&one.id).is_some_and(|id| source.contains(id));
        self.of(Side::Target).filter(|one| !known.contains(one.id.as_str()) && !copied(one)).collect()
    }

    /// Commits of the source, newest first, whose work no squash has.
    pub fn only_on_source(&self, live: &[&Squash]) -> Vec<&Commit> {
        let past = live.last().map_or_else(HashSet::new, |squash| self.past(&squash.up_to));
        self.of(Side::Source).filter(|one| !past.contains(one.id.as_str())).collect()
    }

    /// What ties the histories together on the source: `merge X` for work that the source lacks, `ours X` to record a
    /// squash whose work it has.
    pub fn repair(&self, live: &[&Squash]) -> Vec<Step> {
        let mut steps = Vec::new();
        match live.last() {
            None => return steps,
            // Equal content: whatever the target had of its own before is in it.
            Some(last) if last.by == "tree" => return vec![Step::Ours(last.commit.clone())],
            Some(_) => {}
        }
        let mut before: HashSet<&str> = HashSet::new();
        for squash in live {
            let past = self.past(&squash.commit);
            let own = past.iter().filter(|id| **id != squash.commit && !before.contains(**id)).count();
            if own > 0 {
                steps.extend(self.parent(&squash.commit).map(|parent| Step::Merge(parent.id.clone())));
            } else if let Some(Step::Ours(_)) = steps.last() {
                steps.pop();
            }
            steps.push(Step::Ours(squash.commit.clone()));
            before = past;
        }
        steps
    }
}

/// One merge on the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A merge that takes over.
    Merge(String),
    /// A merge that keeps the content as it is.
    Ours(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `<S1 t1 b` is a commit on the target with tree `t1` and parent `b`.
    fn graph(lines: &[&str]) -> Graph {
        Graph::parse(&lines.iter().map(|line| format!("{line}\0subject\n")).collect::<String>())
    }

    #[test]
    fn the_past_of_a_commit_ends_where_the_branches_part() {
        let graph = graph(&[">m t4 d e", ">d t3 c", ">e t3 c", ">c t2 b", "<s t1 b", "-b t0 a"]);
        assert_eq!(graph.past("m"), HashSet::from(["m", "d", "e", "c"]));
        assert_eq!(graph.past("b"), HashSet::new());
        assert_eq!(graph.len(), 5);
        let open: Vec<&str> = graph.beyond("e").iter().map(|one| one.id.as_str()).collect();
        assert_eq!(open, ["m", "d"]);
    }

    #[test]
    fn a_merge_and_a_commit_without_a_change_are_no_candidates() {
        let graph = graph(&["<m t2 s d", "<s t1 n", "<n t0 b", ">d t9 b", "-b t0"]);
        let names: Vec<&str> = graph.candidates("m").iter().map(|one| one.id.as_str()).collect();
        assert_eq!(names, ["s"]);
    }

    fn squash(commit: &str, up_to: &str, by: &'static str) -> Squash {
        Squash { commit: commit.into(), up_to: up_to.into(), contains: 1, by, reverted_by: None }
    }

    #[test]
    fn work_that_only_the_target_has_is_merged_before_the_squash_over_it_is_recorded() {
        let lines = ["<q t4 r", "<r t3 p", "<p t2 h", "<h t1 b", ">e t8 d", ">d t7 b", "-b t0"];
        let graph = graph(&lines);
        let (p, r, q) = (squash("p", "d", "patch-id"), squash("r", "e", "patch-id"), squash("q", "e", "tree"));
        let (merge, ours) = (|id: &str| Step::Merge(id.into()), |id: &str| Step::Ours(id.into()));
        assert_eq!(graph.repair(&[&p]), [merge("h"), ours("p")]);
        assert_eq!(graph.repair(&[&p, &r]), [merge("h"), ours("r")]);
        assert_eq!(graph.repair(&[&p, &q]), [ours("q")]);
        assert_eq!(graph.repair(&[]), []);
    }
}
