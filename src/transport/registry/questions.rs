//! How a registry has handled optional questions: those whose answers an image does not depend on.
//!
//! A kind of question that has failed for good is not asked again in this run. A kind that was answered before is given
//! up only after [`MOST_FAILURES`] failures in a row. A question is answered when the answer was read to its end and
//! understood. A useless answer, such as a web page or an endless list, is attributed to the requested object. Only if
//! no answer was ever understood does the kind count as failed after [`MOST_FAILURES`] of them. The same holds for a
//! 500 that names content: the registry looked, and what it found is damaged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::error::{Error, Result};
use crate::content::Need;
use crate::oci::Reference;

/// Failures in a row, each after its own tries, of a kind of question that the registry has answered before.
const MOST_FAILURES: u32 = 3;

/// The kinds of optional questions ([`Need::Optional`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// The referrers API.
    Referrers,
    /// The manifest of a companion, by the tag of cosign or of the fallback list, or by its digest.
    Companion,
    /// The list of tags.
    Tags,
}

/// How a registry has handled optional questions so far.
#[derive(Default)]
pub(super) struct Answers {
    kinds: Mutex<HashMap<Question, State>>,
    /// A manifest that it has returned.
    given: Mutex<Option<Reference>>,
}

#[derive(Default)]
struct State {
    answered: bool,
    /// Failures in a row.
    failures: u32,
    /// The number of useless answers and the last one, as long as none was understood.
    useless: (u32, String),
    /// Why it is not asked again.
    given_up: Option<Error>,
}

impl Question {
    /// Returns this kind if the answer is optional.
    pub fn if_optional(self, need: Need) -> Option<Question> {
        (need == Need::Optional).then_some(self)
    }
}

impl Answers {
    /// # Errors
    /// The error of an earlier question of this kind, which is not asked again.
    pub fn check(&self, question: Question) -> Result<()> {
        match self.kinds().get(&question).and_then(|state| state.given_up.as_ref()) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Whether nothing is known about this kind of question.
    pub fn is_new(&self, question: Question) -> bool {
        self.kinds().get(&question).is_none_or(|state| !state.answered && state.given_up.is_none())
    }

    /// Records an answer that was read to its end and understood, or a refusal.
    pub fn answered(&self, question: Question) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        (state.answered, state.failures) = (true, 0);
    }

    /// Records a failure after which the same question is not repeated.
    pub fn failed(&self, question: Question, error: &Error) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        state.failures += 1;
        if !state.answered || state.failures >= MOST_FAILURES {
            state.given_up.get_or_insert_with(|| given_up(error));
        }
    }

    /// Records a useless answer. A repeated one adds nothing.
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

    /// Records a manifest that the registry has returned.
    pub fn note_given(&self, reference: &Reference) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get_or_insert_with(|| reference.clone());
    }

    /// Returns a manifest that the registry has returned.
    pub fn given(&self) -> Option<Reference> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Question, State>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for later questions. The first one was about another object, so no reason is given.
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
    fn answers_that_are_useless_end_a_question_only_where_none_was_ever_understood() {
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
