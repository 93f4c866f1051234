//! What a registry has made of the questions that an image can do without.
//!
//! A kind of question that has failed for good is not asked again in this run; one that was answered before is given up only
//! after [`MOST_FAILURES`] failures in a row. It is answered when the answer was read to its end and understood. An answer that is
//! of no use, such as a web page or an endless list, is about what was asked for; only where none was ever understood does
//! the question count as failed after [`MOST_FAILURES`] of them. So it is with a 500 that names content: the registry has looked,
//! and what it found is damaged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::error::{Error, Result};
use crate::content::Need;
use crate::oci::Reference;

/// Failures in a row, each after its own tries, of a kind of question that the registry has answered before.
const MOST_FAILURES: u32 = 3;

/// The kinds of questions that an image can do without ([`Need::Optional`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// The referrers API.
    Referrers,
    /// A companion's manifest, by the tag of cosign or of the fallback list, or by its digest.
    Companion,
    /// The list of tags.
    Tags,
}

/// What a registry has made of optional questions so far.
#[derive(Default)]
pub(super) struct Answers {
    kinds: Mutex<HashMap<Question, State>>,
    /// A manifest that it has given.
    given: Mutex<Option<Reference>>,
}

#[derive(Default)]
struct State {
    answered: bool,
    /// In a row.
    failures: u32,
    /// The last answer that was of no use, and how many there were, as long as none was understood.
    useless: (u32, String),
    /// Why it is not asked again.
    given_up: Option<Error>,
}

impl Question {
    /// This kind, if an image can do without the answer.
    pub fn if_optional(self, need: Need) -> Option<Question> {
        (need == Need::Optional).then_some(self)
    }
}

impl Answers {
    /// # Errors
    /// That of an earlier question of this kind, which is not asked again.
    pub fn check(&self, question: Question) -> Result<()> {
        match self.kinds().get(&question).and_then(|state| state.given_up.as_ref()) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Whether nothing is known of this kind of question.
    pub fn is_new(&self, question: Question) -> bool {
        self.kinds().get(&question).is_none_or(|state| !state.answered && state.given_up.is_none())
    }

    /// An answer was read to its end and understood, a refusal included.
    pub fn answered(&self, question: Question) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        (state.answered, state.failures) = (true, 0);
    }

    /// Notes a failure after which the same question is not repeated.
    pub fn failed(&self, question: Question, error: &Error) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        state.failures += 1;
        if !state.answered || state.failures >= MOST_FAILURES {
            state.given_up.get_or_insert_with(|| given_up(error));
        }
    }

    /// Notes an answer that came and is of no use. The same one again says nothing new.
    pub fn useless(&self, question: Question, error: &Error) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        let (seen, last) = &mut state.useless;
        let why = error.chain();
        if state.answered || *last == why {
            return;
        }
        (*seen, *last) = (*seen + 1, why.clone());
        if *seen >= MOST_FAILURES {
            state.given_up.get_or_insert_with(|| given_up(error));
        }
    }

    /// Notes a manifest that the registry has given.
    pub fn note_given(&self, reference: &Reference) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get_or_insert_with(|| reference.clone());
    }

    /// A manifest that the registry has given.
    pub fn given(&self) -> Option<Reference> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Question, State>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same for later questions. It was about another object: no reason is given.
pub(super) fn given_up(error: &Error) -> Error {
    Error::new(error.kind(), error.chain()).speaking_for(error.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(failures: &[&str], noted: impl Fn(&Answers, Question, &Error)) -> Answers {
        let answers = Answers::default();
        failures.iter().for_each(|why| noted(&answers, Question::Referrers, &Error::damaged(*why)));
        answers
    }

    #[test]
    fn answers_that_are_of_no_use_end_a_question_only_where_none_was_ever_understood() {
        let is_over = |answers: &Answers| answers.check(Question::Referrers).is_err();
        let useless = Answers::useless;
        assert!(!is_over(&asked(&["of a", "of b"], useless)));
        assert!(!is_over(&asked(&["of a"; 10], useless)), "one subject that is asked about again and again");
        assert!(is_over(&asked(&["of a", "of b", "of c"], useless)));
        let understood = asked(&["of a"], useless);
        understood.answered(Question::Referrers);
        for subject in ["of b", "of c", "of d", "of e"] {
            understood.useless(Question::Referrers, &Error::damaged(subject));
        }
        assert!(!is_over(&understood));
    }

    #[test]
    fn a_question_that_gets_no_answer_is_not_asked_again() {
        let is_over = |answers: &Answers| answers.check(Question::Referrers).is_err();
        assert!(is_over(&asked(&["of a"], Answers::failed)));
        let answers = Answers::default();
        answers.answered(Question::Referrers);
        for left in [false, false, true] {
            answers.failed(Question::Referrers, &Error::damaged("of a"));
            assert_eq!(is_over(&answers), left);
        }
    }
}
