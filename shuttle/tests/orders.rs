//! Each scenario in many orders: random ones, and ones with few changes of the task at places that matter ("probabilistic concurrency
//! testing"). The orders are drawn anew in each run.

use shoal_shuttle::scenarios;

/// Orders of each kind. A fault that the scenarios were tried with showed within the first hundred.
const ORDERS: usize = 1_000;

/// Changes of the task in an order of the second kind.
const DEPTH: usize = 3;

fn check(scenario: fn()) {
    shuttle::check_random(scenario, ORDERS);
    shuttle::check_pct(scenario, ORDERS, DEPTH);
}

#[test]
fn whatever_is_put_into_an_outbox_is_sent() {
    check(scenarios::outbox_delivers);
}

#[test]
fn nothing_follows_the_goodbye_of_an_outbox() {
    check(scenarios::outbox_ends);
}

#[test]
fn the_upload_hub_answers_each_request_once_and_loses_no_slot() {
    check(scenarios::upload_hub_answers);
}

#[test]
fn buffers_and_turns_come_back_no_matter_which_task_gives_up() {
    check(scenarios::buffers_take_turns);
}
