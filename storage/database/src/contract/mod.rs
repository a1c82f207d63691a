//! What every store of records must do: one claim each, run on all of them.
//!
//! A store of another crate passes when [`run`] returns: it panics at the first claim that does not hold.

mod events;
mod ledger;
mod ownership;
mod plain;
mod questions;
mod remarks;
mod spend;
pub(crate) mod stage;
mod steps;
mod tasks;
mod workers;

use std::future::Future;
use std::sync::Arc;

use crate::RecordStore;

macro_rules! claims {
    ($($module:ident: $($claim:ident)+;)+) => {
        /// Checks every claim, each on empty records that `empty` makes.
        pub async fn run<F, Fut>(empty: F)
        where
            F: Fn() -> Fut,
            Fut: Future<Output = Arc<dyn RecordStore>>,
        {
            $($(
                eprintln!("{}", stringify!($claim));
                $module::$claim(empty().await.into()).await;
            )+)+
        }

        #[cfg(test)]
        mod memory {
            use super::*;
            $($(
                #[tokio::test]
                async fn $claim() {
                    let store: Arc<dyn RecordStore> = Arc::new(crate::MemoryStore::new());
                    $module::$claim(store.into()).await;
                }
            )+)+
        }

        #[cfg(test)]
        mod sqlite {
            use super::*;
            $($(
                #[tokio::test]
                async fn $claim() {
                    let folder = tempfile::tempdir().unwrap();
                    let store = crate::SqliteStore::open(folder.path().join("records.db")).await.unwrap();
                    let store: Arc<dyn RecordStore> = Arc::new(store);
                    $module::$claim(store.into()).await;
                }
            )+)+
        }
    };
}

claims! {
    ownership:
        claiming_raises_the_epoch_and_names_the_holder
        a_claim_under_an_old_epoch_is_refused
        a_repeated_claim_is_the_same_claim
        of_concurrent_claims_exactly_one_wins
        a_task_that_waits_for_dependencies_cannot_be_claimed
        a_stale_owner_cannot_commit
        a_stale_owner_cannot_change_the_state
        a_stale_owner_cannot_ask
        a_journal_entry_under_another_epoch_is_refused
        one_stale_member_costs_its_neighbours_nothing
        a_member_refused_after_a_change_costs_its_neighbours_nothing
        a_group_answers_in_its_order;
    steps:
        a_commit_moves_the_head_and_adds_the_spend
        a_repeated_commit_is_the_same_commit
        a_commit_on_another_head_is_refused
        a_commit_cannot_raise_a_cancelled_task_from_the_dead
        a_commit_drops_the_journal_of_its_step_and_before
        a_commit_and_its_consequence_are_one
        a_commit_whose_consequence_is_refused_leaves_no_trace
        a_step_that_exists_costs_its_neighbours_nothing
        a_step_is_seen_by_those_that_follow_it_in_its_group
        a_repeated_append_is_the_same_append_and_another_body_is_a_conflict
        the_journal_is_read_above_an_ordinal_in_sequence
        a_step_comes_back_as_it_was_committed
        a_step_names_the_object_that_holds_what_it_said
        a_lineage_is_the_line_and_nothing_beside_it
        steps_of_one_number_are_in_the_order_of_their_line
        a_rollback_moves_the_head_and_fences
        a_rollback_of_an_active_task_is_refused
        a_rollback_elsewhere_is_refused
        a_repeated_rollback_is_the_same_rollback
        a_fork_starts_at_the_forked_step
        lineage_crosses_into_the_forked_task
        a_checkpoint_names_one_step
        the_greatest_store_sequence_is_acknowledged
        all_content_that_is_named_anywhere_is_told;
    tasks:
        a_new_task_is_pending_and_told
        a_task_that_is_made_parked_was_never_anything_else_and_takes_a_step
        a_repeated_creation_is_the_same_creation
        an_idempotency_key_answers_the_task_made_before
        an_idempotency_key_with_another_request_is_refused
        the_same_key_of_another_owner_is_another_key
        a_dependency_that_does_not_exist_is_refused
        a_dependency_that_failed_is_refused
        a_forked_step_that_does_not_exist_is_refused
        completing_a_task_frees_those_that_waited
        completing_a_task_frees_one_that_was_made_in_the_same_group
        a_task_waits_for_all_its_dependencies
        starting_from_the_files_of_a_task_waits_for_it
        failing_a_task_fails_those_that_waited
        a_parked_task_goes_on_once_its_dependencies_have_completed
        a_task_is_tried_again_once_those_it_needs_are
        cancelling_a_task_fails_a_whole_chain
        a_final_state_is_left_only_where_it_is_named
        a_state_that_is_not_active_lets_the_worker_go
        a_fencing_change_makes_the_owner_stale
        a_repeated_change_of_state_is_the_same_change
        a_change_of_budget_is_kept_and_the_request_is_not_forgotten
        tasks_are_listed_newest_first_by_state
        tasks_are_found_by_the_first_or_last_digits_of_their_ids;
    questions:
        asking_parks_a_task_and_answering_frees_it
        a_question_repeated_is_asked_once
        a_second_answer_is_refused_and_the_same_answer_is_not
        a_task_that_was_parked_with_a_question_waits_for_the_answer_again
        a_task_waits_with_one_question_and_no_other_answer_frees_it
        going_back_to_before_a_question_closes_it
        an_answer_does_not_wake_a_cancelled_task;
    remarks:
        what_is_said_is_heard_by_the_step_that_names_it_and_by_no_other
        what_is_said_twice_under_one_id_is_said_once
        nobody_speaks_to_a_task_that_has_ended
        a_task_does_not_complete_before_it_has_heard_everything
        what_is_said_in_the_group_of_its_last_step_is_heard_first
        a_stale_step_hears_nothing;
    workers:
        a_worker_is_recorded_changed_and_forgotten
        a_repeated_worker_write_is_the_same_write
        two_workers_cannot_have_one_name
        a_lifecycle_is_changed_once
        a_node_lease_is_renewed
        records_keep_the_id_that_they_were_given_first;
    events:
        sequences_of_a_task_have_no_gaps
        a_refused_write_tells_nothing
        events_are_read_in_order_from_where_the_reader_stopped
        an_event_of_an_unknown_task_is_refused;
    plain:
        a_zero_character_is_replaced_wherever_there_is_text;
    spend:
        spend_counts_committed_steps_since_an_instant
        spend_includes_reservations_of_unfinished_steps
        spend_of_a_dropped_journal_is_not_forgotten
        what_is_below_a_task_is_read_with_what_each_spent;
    ledger:
        a_key_is_kept_as_it_was_made_and_revoked_once
        the_ledger_is_read_newest_first_and_a_call_counts_once
        a_removed_key_is_gone_and_the_ledger_keeps_what_it_spent
        what_is_known_of_a_call_takes_the_place_of_what_was_feared_and_stays
        every_call_counts_once_against_its_owner_and_its_project
        what_an_external_agent_spends_counts_as_it_is_spent_and_not_again_with_its_step;
}
