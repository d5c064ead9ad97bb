//! What an expression can come to while the arguments are not known: a set of answers.
//!
//! With the arguments known it has one member. The connectives work on sets as CEL's work
//! on answers: a failure beside `false && …` or `true || …` does not count.

/// Which of yes, no and failure are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// It can be true.
    pub yes: bool,
    /// It can be false.
    pub no: bool,
    /// It can fail.
    pub fails: bool,
}

impl Outcome {
    /// Certainly true.
    pub const YES: Self = Self {
        yes: true,
        no: false,
        fails: false,
    };
    /// Certainly false.
    pub const NO: Self = Self {
        yes: false,
        no: true,
        fails: false,
    };
    /// Certainly a failure.
    pub const FAILURE: Self = Self {
        yes: false,
        no: false,
        fails: true,
    };
    /// It depends.
    pub const ANY: Self = Self {
        yes: true,
        no: true,
        fails: true,
    };

    pub(super) const fn of(answer: bool) -> Self {
        if answer { Self::YES } else { Self::NO }
    }

    pub(super) const fn not(self) -> Self {
        Self {
            yes: self.no,
            no: self.yes,
            fails: self.fails,
        }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            yes: self.yes && other.yes,
            no: self.no || other.no,
            fails: (self.fails && (other.yes || other.fails)) || (self.yes && other.fails),
        }
    }

    pub(super) const fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    /// `self ? then : otherwise`.
    pub(super) const fn choose(self, then: Self, otherwise: Self) -> Self {
        Self {
            yes: (self.yes && then.yes) || (self.no && otherwise.yes),
            no: (self.yes && then.no) || (self.no && otherwise.no),
            fails: self.fails || (self.yes && then.fails) || (self.no && otherwise.fails),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One answer: true, false, or a failure.
    type Answer = Option<bool>;

    const SETS: [Outcome; 7] = {
        let mut sets = [Outcome::ANY; 7];
        let mut bits = 1;
        while bits < 8 {
            sets[bits - 1] = Outcome {
                yes: bits & 1 != 0,
                no: bits & 2 != 0,
                fails: bits & 4 != 0,
            };
            bits += 1;
        }
        sets
    };

    fn members(set: Outcome) -> Vec<Answer> {
        let all = [
            (set.yes, Some(true)),
            (set.no, Some(false)),
            (set.fails, None),
        ];
        all.iter().filter(|(is, _)| *is).map(|(_, a)| *a).collect()
    }

    fn collect(answers: impl IntoIterator<Item = Answer>) -> Outcome {
        let mut set = Outcome {
            yes: false,
            no: false,
            fails: false,
        };
        for answer in answers {
            match answer {
                Some(true) => set.yes = true,
                Some(false) => set.no = true,
                None => set.fails = true,
            }
        }
        set
    }

    fn and(a: Answer, b: Answer) -> Answer {
        match (a, b) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }
    }

    #[test]
    fn a_connective_of_sets_is_the_connective_of_all_their_members() {
        let not = |a: Answer| a.map(|a| !a);
        for a in SETS {
            assert_eq!(a.not(), collect(members(a).into_iter().map(not)));
            for b in SETS {
                let pairs = members(a)
                    .into_iter()
                    .flat_map(|x| members(b).into_iter().map(move |y| (x, y)));
                let both: Vec<(Answer, Answer)> = pairs.collect();
                let conjunction = both.iter().map(|(x, y)| and(*x, *y));
                assert_eq!(a.and(b), collect(conjunction), "{a:?} && {b:?}");
                let disjunction = both.iter().map(|(x, y)| not(and(not(*x), not(*y))));
                assert_eq!(a.or(b), collect(disjunction), "{a:?} || {b:?}");
                for condition in SETS {
                    let chosen = members(condition).into_iter().flat_map(|c| match c {
                        Some(true) => members(a),
                        Some(false) => members(b),
                        None => vec![None],
                    });
                    assert_eq!(condition.choose(a, b), collect(chosen));
                }
            }
        }
    }
}
