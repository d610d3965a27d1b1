/// What an upstream can be used for, for what reason not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fitness {
    /// Everything.
    Fit,
    /// Trial requests: its circuit is half open.
    Trial,
    /// Nothing for now: it failed real requests.
    Ejected,
    /// Nothing for now: its circuit is open.
    Open,
    /// Nothing: its checks fail.
    Sick,
    /// Nothing yet: it has not passed a check.
    Starting,
    /// What is stuck to it: it drains.
    Draining,
    /// Nothing: it is drained or in maintenance.
    Away,
}

/// How an upstream is used in the next snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// For any request. [`Outcomes::admit`](super::Outcomes::admit) is still asked, and counts trial requests.
    Any,
    /// Only for what is stuck to it: weight 0 in the balancer's table.
    Stuck,
    /// Not at all.
    No,
}

/// Who of a pool is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineup {
    /// For each upstream, in the order given.
    pub uses: Vec<Use>,
    /// Whether upstreams that are not fit are used, for want of better ones.
    pub panicking: bool,
}

/// Who of a pool is used, given what each can be used for and whether it is a backup.
///
/// **Panic.** If less than `panic_threshold` of a tier (the primaries, or the backups) is fit, all of it is used but
/// for open circuits: too few would be crushed by the load of all. Who has not started, drains or is in maintenance
/// counts on neither side and is never drawn in. Where primaries are all unfit and a backup is fit, the backups take
/// over and there is no panic: that is what they are for.
///
/// **Nobody left.** Where nobody at all is fit, those that are only ejected are used, whatever the threshold: they may
/// work, and nobody else does.
///
/// **Source**: Envoy's panic threshold.
pub fn fit(upstreams: &[(Fitness, bool)], panic_threshold: f64) -> Lineup {
    let mut primaries = Tier::of(upstreams, false);
    let mut backups = Tier::of(upstreams, true);
    primaries.panics = primaries.is_below(panic_threshold) && !(primaries.fit == 0 && backups.fit > 0);
    backups.panics = backups.is_below(panic_threshold);
    let nobody = primaries.fit + backups.fit == 0;
    let uses: Vec<Use> = upstreams
        .iter()
        .map(|(fitness, backup)| {
            let panics = if *backup { backups.panics } else { primaries.panics };
            match fitness {
                Fitness::Fit | Fitness::Trial => Use::Any,
                Fitness::Ejected if panics || nobody => Use::Any,
                Fitness::Sick if panics => Use::Any,
                Fitness::Draining => Use::Stuck,
                _ => Use::No,
            }
        })
        .collect();
    let unfit = |fitness: &Fitness| matches!(fitness, Fitness::Ejected | Fitness::Sick);
    let panicking = upstreams.iter().zip(&uses).any(|((fitness, _), used)| unfit(fitness) && *used == Use::Any);
    Lineup { uses, panicking }
}

#[derive(Debug, Default)]
struct Tier {
    /// Upstreams that are fit.
    fit: usize,
    /// Upstreams that should be.
    wanted: usize,
    panics: bool,
}

impl Tier {
    fn of(upstreams: &[(Fitness, bool)], backup: bool) -> Self {
        let mut tier = Tier::default();
        for (fitness, _) in upstreams.iter().filter(|(_, is_backup)| *is_backup == backup) {
            match fitness {
                Fitness::Fit | Fitness::Trial => (tier.fit, tier.wanted) = (tier.fit + 1, tier.wanted + 1),
                Fitness::Ejected | Fitness::Open | Fitness::Sick => tier.wanted += 1,
                Fitness::Starting | Fitness::Draining | Fitness::Away => {}
            }
        }
        tier
    }

    fn is_below(&self, threshold: f64) -> bool {
        (self.fit as f64) < threshold * self.wanted as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FITNESSES: [(char, Fitness); 8] = [
        ('f', Fitness::Fit),
        ('t', Fitness::Trial),
        ('e', Fitness::Ejected),
        ('o', Fitness::Open),
        ('s', Fitness::Sick),
        ('n', Fitness::Starting),
        ('d', Fitness::Draining),
        ('a', Fitness::Away),
    ];

    /// A letter for each upstream, as above, in capitals for backups; the answer has `+` for any request, `~` for what
    /// is stuck, `-` for none, and `!` at its end for panic.
    fn lineup(pool: &str, threshold: f64) -> String {
        let read = |letter: char| {
            let (_, fitness) = FITNESSES.iter().find(|(l, _)| *l == letter.to_ascii_lowercase()).unwrap();
            (*fitness, letter.is_ascii_uppercase())
        };
        let lineup = fit(&pool.chars().map(read).collect::<Vec<_>>(), threshold);
        let write = |used| match used {
            Use::Any => '+',
            Use::Stuck => '~',
            Use::No => '-',
        };
        lineup.uses.into_iter().map(write).chain(lineup.panicking.then_some('!')).collect()
    }

    #[test]
    fn who_is_used() {
        for (pool, threshold, expected) in [
            ("", 0.5, ""),
            ("fftesonda", 0.0, "+++----~-"),
            // Panic: too few are fit.
            ("fses", 0.5, "++++!"),
            ("ffes", 0.5, "++--"),
            ("foss", 0.5, "+-++!"),
            ("fnnn", 0.5, "+---"),
            ("fdda", 0.5, "+~~-"),
            ("fssda", 0.5, "+++~-!"),
            ("sss", 0.01, "+++!"),
            // Nobody is fit and there is no threshold: the ejected are used, the sick are not.
            ("ess", 0.0, "+--!"),
            ("ee", 0.0, "++!"),
            ("e", 0.0, "+!"),
            ("sss", 0.0, "---"),
            ("oo", 0.0, "--"),
            ("nnn", 0.5, "---"),
            // Backups take over before anybody panics.
            ("ssFF", 0.5, "--++"),
            ("eeF", 0.0, "--+"),
            ("fssF", 0.5, "++++!"),
            ("ssFS", 0.9, "--++!"),
            ("ssSS", 0.5, "++++!"),
            ("eE", 0.0, "++!"),
        ] {
            assert_eq!(lineup(pool, threshold), expected, "{pool} {threshold}");
        }
    }

    proptest! {
        #[test]
        fn the_fit_are_always_used_and_who_is_away_never(pool in prop::collection::vec((0usize..8, any::<bool>()), 0..12), threshold in 0.0f64..=1.0) {
            let pool: Vec<(Fitness, bool)> = pool.into_iter().map(|(n, backup)| (FITNESSES[n].1, backup)).collect();
            let lineup = fit(&pool, threshold);
            prop_assert_eq!(lineup.uses.len(), pool.len());
            for ((fitness, _), used) in pool.iter().zip(&lineup.uses) {
                match fitness {
                    Fitness::Fit | Fitness::Trial => prop_assert_eq!(*used, Use::Any),
                    Fitness::Open | Fitness::Starting | Fitness::Away => prop_assert_eq!(*used, Use::No),
                    Fitness::Draining => prop_assert_eq!(*used, Use::Stuck),
                    Fitness::Ejected | Fitness::Sick => prop_assert!(*used == Use::No || lineup.panicking),
                }
            }
            let ejected = pool.iter().any(|(fitness, _)| *fitness == Fitness::Ejected);
            prop_assert!(!ejected || lineup.uses.contains(&Use::Any), "somebody is used while there is somebody to use");
        }
    }
}
