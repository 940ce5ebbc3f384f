//! Reaching people: transfers, forwarded lines, members who call each other, take-overs.

use super::*;

const ANN: &str = "+14155550101";
const BOB: &str = "+14155550102";

pub(super) fn reach(numbers: &[&str]) -> Reach {
    Reach {
        to: numbers.iter().map(|n| n.parse().expect("a number")).collect(),
        caller_id: None,
        ring_ms: 20_000,
        accept: Accept::KeyOrVoice,
        brief: None,
        otherwise: Otherwise::Agent,
    }
}

fn with_sales(reach: Reach) -> CallPlan {
    CallPlan { destinations: vec![Destination { name: "Sales".into(), reach, warm: true }], ..plan() }
}

fn forwarded(reach: Reach) -> CallPlan {
    CallPlan { opening: Opening::Reach(reach), ..plan() }
}

/// The caller asks for sales, and the agent rings it at 4.15 s.
fn transfer(rest: Vec<(u32, Act)>) -> Vec<(u32, Act)> {
    let mut script = vec![
        (2_050, Says("Sales, please.")),
        (2_200, Begins("I connect you.")),
        (2_210, Wants("transfer", r#"{"to": "sales", "summary": "Wants a table."}"#)),
        (2_220, Done),
    ];
    script.extend(rest);
    script
}

#[test]
fn a_person_hears_the_summary_and_takes_the_call_by_key() {
    check_with(
        with_sales(Reach { brief: Some("A caller of Ada's.".into()), ..reach(&[ANN]) }),
        &transfer(vec![
            (8_000, PicksUp),
            (9_000, PersonSays("Yes, hello.")),
            (10_000, Told),
            (11_000, PersonPresses('1')),
            (11_300, Bridged),
            (60_000, Gone(LegEnd::HungUp)),
        ]),
        expect![[r#"
              2910 rings +14155550101
              2910 tone Ringback
              8000 tells the person: A caller of Ada's. Wants a table. Press 1 to take the call.
              8000 tone Waiting
             11000 bridges
             11300 no tone
             60000 hangs up
            Agent: Ada's, hello.
            Caller: Sales, please.
            Agent: I connect you.
            Transferred
            asked 1 times, last with: agent Ada's, hello. | user Sales, please."#]],
    );
}

#[test]
fn what_becomes_of_a_transfer_is_told_to_the_model() {
    let took_no_call = |how: &str| format!("not connected: Sales {how}. The caller is with you again.");
    let table: Vec<(Vec<(u32, Act)>, &str)> = vec![
        (vec![(6_000, Gone(LegEnd::Busy))], "is on the phone"),
        (vec![(6_000, Gone(LegEnd::NoAnswer))], "did not answer"),
        (vec![(6_000, Gone(LegEnd::Failed))], "could not be connected"),
        (vec![(6_000, Gone(LegEnd::Machine))], "did not answer: a machine did"),
        (vec![(6_000, PicksUp), (7_000, Gone(LegEnd::HungUp))], "hung up without taking the call"),
        (vec![(6_000, PicksUp), (7_000, Told), (8_000, PersonSays("Not now."))], "did not take the call"),
        (vec![(6_000, PicksUp), (7_000, TellFails)], "could not be connected"),
        (vec![(6_000, PicksUp), (7_000, PersonPresses('1')), (8_000, BridgeFails)], "could not be connected"),
    ];
    for (script, how) in table {
        let mut bed = Bed::new(with_sales(reach(&[ANN])));
        bed.tell(Input::Connected);
        for (ms, act) in transfer(script).iter().chain(&[(10_000, Writes("Nobody is there."))]) {
            bed.until(*ms);
            bed.act(act);
        }
        bed.until(13_000);
        let told = bed
            .asked
            .last()
            .expect("the model is asked")
            .iter()
            .any(|m| matches!(m, ChatMessage::Tool { text, .. } if *text == took_no_call(how)));
        assert!(told, "{how}: {:?}", bed.asked.last());
        assert_eq!(bed.call.transcript().last().map(|l| l.text.as_str()), Some("Nobody is there."), "{how}");
        assert!(bed.story.iter().any(|s| s.ends_with("no tone")), "{how}: {:?}", bed.story);
    }
}

#[test]
fn a_phone_of_which_nobody_reports_anything_is_given_up() {
    check_with(
        with_sales(reach(&[ANN, BOB])),
        &transfer(vec![(40_000, PicksUp), (41_000, Told), (60_000, Told), (75_000, Waits)]),
        expect![[r#"
              2910 rings +14155550101
              2910 tone Ringback
             32910 drops leg 1
             32910 rings +14155550102
             40000 tells the person: Wants a table. Press 1 to take the call.
             40000 tone Waiting
             49000 tells the person: Press 1 to take the call.
             68000 drops leg 2
             68000 no tone
             72000 asks model 1
            Agent: Ada's, hello.
            Caller: Sales, please.
            Agent: I connect you.
            Agent: I am still trying to reach somebody. Thank you for waiting.
            Agent: I am still trying to reach somebody. Thank you for waiting.
            Agent: I am still trying to reach somebody. Thank you for waiting.
            Agent: I am still trying to reach somebody. Thank you for waiting.
            Agent: I am still trying to reach somebody. Thank you for waiting.
            Agent: One moment, please.
            asked 3 times, last with: agent Ada's, hello. | user Sales, please. | agent I connect you. -> 1 | tool not connected: Sales did not take the call. The caller is with you again."#]],
    );
}

#[test]
fn a_caller_who_talks_while_it_rings_is_answered_afterwards() {
    check_with(
        with_sales(reach(&[ANN])),
        &transfer(vec![
            (6_000, Starts),
            (6_900, Stops),
            (7_000, Says("Actually it is about Tuesday.")),
            (9_000, Gone(LegEnd::Busy)),
            (9_300, Writes("Sales is busy. What about Tuesday?")),
            (13_000, Waits),
        ]),
        expect![[r#"
              2910 rings +14155550101
              2910 tone Ringback
              9000 no tone
            Agent: Ada's, hello.
            Caller: Sales, please.
            Agent: I connect you.
            Caller: Actually it is about Tuesday.
            Agent: Sales is busy. What about Tuesday?
            asked 2 times, last with: agent Ada's, hello. | user Sales, please. | agent I connect you. -> 1 | tool not connected: Sales is on the phone. The caller is with you again. | user Actually it is about Tuesday. | user (The caller is with you again, and what became of it stands above. Tell them what matters of it, and go on.)"#]],
    );
}

#[test]
fn a_transfer_to_nobody_known_or_to_two_is_refused() {
    check_with(
        with_sales(reach(&[ANN])),
        &[
            (2_050, Says("The king, please.")),
            (2_210, Wants("transfer", r#"{"to": "the king"}"#)),
            (2_220, Done),
            (2_400, Wants("transfer", r#"{"to": "+14155550101"}"#)),
            (2_410, Wants("transfer", r#"{"to": "sales"}"#)),
            (2_420, Done),
            (8_000, Gone(LegEnd::Busy)),
            (8_100, Writes("Busy.")),
            (10_000, Waits),
        ],
        expect![[r#"
              4430 rings +14155550101
              4430 tone Ringback
              8000 no tone
            Agent: Ada's, hello.
            Caller: The king, please.
            Agent: One moment, please. I am connecting you.
            Agent: Busy.
            asked 3 times, last with: agent Ada's, hello. | user The king, please. | agent  -> 1 | tool error: there is nobody called the king; there are: Sales | agent  -> 2 | tool not connected: Sales is on the phone. The caller is with you again. | tool error: the caller is being connected to somebody already"#]],
    );
}

#[test]
fn a_forwarded_line_rings_one_after_the_other_and_then_has_the_agent() {
    check_with(
        forwarded(Reach { accept: Accept::Pickup, ..reach(&[ANN, BOB]) }),
        &[(5_000, Gone(LegEnd::Busy)), (9_000, Gone(LegEnd::NoAnswer)), (16_000, Waits)],
        expect![[r#"
                 0 rings +14155550101
                 0 tone Ringback
              5000 rings +14155550102
              9000 no tone
            Agent: I am sorry, nobody could be reached right now.
            Agent: Ada's, hello.
            asked 0 times, last with: "#]],
    );
}

#[test]
fn who_picks_up_a_forwarded_call_is_connected_at_once() {
    check_with(
        forwarded(Reach { accept: Accept::Pickup, ..reach(&[ANN]) }),
        &[(5_000, PicksUp), (5_300, Bridged), (5_310, MediaLost), (90_000, HangsUp)],
        expect![[r#"
                 0 rings +14155550101
                 0 tone Ringback
              5000 bridges
              5300 no tone
             90000 drops leg 1
            Forwarded
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_caller_who_hangs_up_while_it_rings_ends_that_too() {
    check_with(
        forwarded(reach(&[ANN])),
        &[(5_000, PicksUp), (5_300, HangsUp), (5_310, PersonPresses('1'))],
        expect![[r#"
                 0 rings +14155550101
                 0 tone Ringback
              5000 tells the person: Press 1 to take the call.
              5000 tone Waiting
              5300 drops leg 1
            CallerHungUp
            asked 0 times, last with: "#]],
    );
}

#[test]
fn members_who_do_not_reach_each_other_are_told() {
    check_with(
        CallPlan { opening: Opening::Member(reach(&[ANN])), ..plan() },
        &[(5_000, Gone(LegEnd::Refused)), (12_000, Waits)],
        expect![[r#"
                 0 rings +14155550101
                 0 tone Ringback
              5000 no tone
              7310 hangs up
            Agent: I am sorry, nobody could be reached right now.
            NobodyReached
            asked 0 times, last with: "#]],
    );
}

#[test]
fn an_unreached_caller_can_leave_a_message_or_hears_why() {
    check_with(
        forwarded(Reach { otherwise: Otherwise::Message("We are closed.".into()), ..reach(&[ANN]) }),
        &[(5_000, Gone(LegEnd::Busy)), (12_000, Waits)],
        expect![[r#"
                 0 rings +14155550101
                 0 tone Ringback
              5000 no tone
              5710 hangs up
            Agent: We are closed.
            MessageTold
            asked 0 times, last with: "#]],
    );
    check_with(
        forwarded(Reach { otherwise: Otherwise::Voicemail, ..reach(&[ANN]) }),
        &[(5_000, Gone(LegEnd::Busy)), (15_000, HangsUp)],
        expect![[r#"
                 0 rings +14155550101
                 0 tone Ringback
              5000 no tone
              8710 beeps
              9220 records
             14220 stops recording
            Agent: We cannot take your call right now. Please leave a message after the tone.
            Agent: Thank you for [cut]
            VoicemailEmpty
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_colleague_takes_over_and_the_agent_keeps_notes() {
    check_with(
        plan(),
        &[
            (2_050, Says("I am angry.")),
            (2_100, Writes("I am sorry to hear that, what happened to you today?")),
            (3_000, TakesOver(BOB, true)),
            (8_000, PicksUp),
            (9_000, PersonPresses('1')),
            (9_200, Bridged),
            (10_000, PersonSays("Bob here, what is it?")),
            (11_000, Starts),
            (12_000, Stops),
            (12_100, Says("My order is late.")),
            (13_000, Whispers("Offer a refund.")),
            (60_000, Gone(LegEnd::HungUp)),
        ],
        expect![[r#"
              3000 rings +14155550102
              3000 tone Ringback
              8000 tells the person: Press 1 to take the call.
              8000 tone Waiting
              9000 bridges here
              9200 no tone
             13000 tells the person: Offer a refund.
             60000 hangs up
            Agent: Ada's, hello.
            Caller: I am angry.
            Agent: I am sorry to [cut]
            Agent: One moment, please. I am connecting you.
            Staff: Bob here, what is it?
            Caller: My order is late.
            TakenOver
            asked 1 times, last with: agent Ada's, hello. | user I am angry."#]],
    );
}

#[test]
fn a_take_over_that_nobody_takes_gives_the_caller_back() {
    check_with(
        plan(),
        &[
            (3_000, TakesOver(BOB, false)),
            (8_000, Gone(LegEnd::NoAnswer)),
            (8_100, Writes("Where were we?")),
            (14_000, Waits),
        ],
        expect![[r#"
              3000 rings +14155550102
              3000 tone Ringback
              8000 no tone
            Agent: Ada's, hello.
            Agent: One moment, please. I am connecting you.
            Agent: I am sorry, nobody could be reached right now.
            Agent: Where were we?
            asked 1 times, last with: agent Ada's, hello. | user (A colleague wanted to talk to the caller, but did not answer. The caller is with you again.) | user (The caller is with you again, and what became of it stands above. Tell them what matters of it, and go on.)"#]],
    );
}

#[test]
fn a_whisper_is_known_to_the_next_answer() {
    check_with(
        plan(),
        &[
            (1_500, Whispers("Offer ten percent.")),
            (2_050, Says("How much is it?")),
            (2_300, Writes("Ten percent off.")),
            (5_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: How much is it?
            Agent: Ten percent off.
            asked 1 times, last with: agent Ada's, hello. | user (A colleague who listens tells you, unheard by the caller: Offer ten percent.) | user How much is it?"#]],
    );
}

#[test]
fn a_line_to_a_person_that_breaks_leads_back_to_the_agent_where_the_caller_is_still_with_us() {
    check_with(
        CallPlan { recording: Recording::On, ..with_sales(reach(&[ANN])) },
        &transfer(vec![
            (8_000, PicksUp),
            (9_000, PersonPresses('1')),
            (9_300, Bridged),
            (20_000, Gone(LegEnd::Lost)),
            (20_300, Writes("The line broke.")),
            (24_000, Waits),
        ]),
        expect![[r#"
                 0 records
              2910 rings +14155550101
              2910 tone Ringback
              8000 tells the person: Wants a table. Press 1 to take the call.
              8000 tone Waiting
              9000 bridges here
              9300 no tone
            Agent: Ada's, hello.
            Caller: Sales, please.
            Agent: I connect you.
            Agent: The line broke.
            asked 2 times, last with: agent Ada's, hello. | user Sales, please. | agent I connect you. -> 1 | tool connected | user (The line between the caller and Sales broke. They are with you again.) | user (The caller is with you again, and what became of it stands above. Tell them what matters of it, and go on.)"#]],
    );
}

#[test]
fn a_bridged_call_is_neither_nudged_nor_ended_by_the_longest_duration() {
    let mut bed = Bed::new(forwarded(Reach { accept: Accept::Pickup, ..reach(&[ANN]) }));
    bed.tell(Input::Connected);
    for (ms, act) in [(5_000, PicksUp), (5_300, Bridged), (3 * 60 * 60_000, Waits)] {
        bed.until(ms);
        bed.act(&act);
    }
    assert_eq!((bed.call.ended(), bed.story.len()), (None, 4), "{:?}", bed.story);
    bed.until(4 * 60 * 60_000 + 10_000);
    assert_eq!(bed.call.ended(), Some(EndedReason::MaxDuration));
}

#[test]
fn a_recogniser_that_dies_while_it_rings_does_not_end_the_transfer() {
    check_with(
        with_sales(reach(&[ANN])),
        &transfer(vec![
            (6_000, RecogniserFails(false)),
            (8_000, PicksUp),
            (9_000, PersonPresses('1')),
            (9_300, Bridged),
            (20_000, HangsUp),
        ]),
        expect![[r#"
              2910 rings +14155550101
              2910 tone Ringback
              8000 tells the person: Wants a table. Press 1 to take the call.
              8000 tone Waiting
              9000 bridges
              9300 no tone
             20000 drops leg 1
            Agent: Ada's, hello.
            Caller: Sales, please.
            Agent: I connect you.
            Transferred
            asked 1 times, last with: agent Ada's, hello. | user Sales, please."#]],
    );
    // And if nobody takes the call, there is no agent to come back to.
    check_with(
        with_sales(reach(&[ANN])),
        &transfer(vec![(6_000, VoiceFails(false)), (8_000, Gone(LegEnd::Busy)), (12_000, Waits)]),
        expect![[r#"
              2910 rings +14155550101
              2910 tone Ringback
              8000 no tone
              8000 plays the canned apology
              9010 hangs up
            Agent: Ada's, hello.
            Caller: Sales, please.
            Agent: I connect you.
            Agent: I am sorry, something went wrong on our side.
            ProvidersFailed
            asked 1 times, last with: agent Ada's, hello. | user Sales, please."#]],
    );
}

#[test]
fn a_node_that_dies_takes_the_phones_along_that_it_rang_but_no_bridge_at_the_carrier() {
    let back = [(6_000, NodeDies), (6_500, Connected), (6_800, Writes("It broke.")), (9_000, Waits)];
    check_with(
        with_sales(reach(&[ANN])),
        &transfer(back.into()),
        expect![[r#"
          2910 rings +14155550101
          2910 tone Ringback
          6000 drops leg 1
        Agent: Ada's, hello.
        Caller: Sales, please.
        Agent: I connect you.
        Agent: It broke.
        asked 2 times, last with: agent Ada's, hello. | user Sales, please. | agent I connect you. -> 1 | tool not connected: Sales could not be connected, because the connection broke. The caller is with you again."#]],
    );
    let again = [(5_000, NodeDies), (6_000, Connected), (8_000, Waits)];
    check_with(
        forwarded(reach(&[ANN])),
        &again,
        expect![[r#"
             0 rings +14155550101
             0 tone Ringback
          5000 drops leg 1
          6000 rings +14155550101
          6000 tone Ringback
        asked 0 times, last with: "#]],
    );
    let lives = [(5_000, PicksUp), (5_300, Bridged), (6_000, NodeDies), (70_000, Gone(LegEnd::HungUp))];
    check_with(
        forwarded(Reach { accept: Accept::Pickup, ..reach(&[ANN]) }),
        &lives,
        expect![[r#"
             0 rings +14155550101
             0 tone Ringback
          5000 bridges
          5300 no tone
         70000 hangs up
        Forwarded
        asked 0 times, last with: "#]],
    );
}

#[test]
fn the_longest_duration_ends_a_call_that_still_rings() {
    let mut short = forwarded(Reach { ring_ms: 100_000, ..reach(&[ANN]) });
    short.timing.max_duration_ms = 15_000;
    check_with(
        short,
        &[(24_000, Waits)],
        expect![[r#"
             0 rings +14155550101
             0 tone Ringback
         15000 drops leg 1
         15000 no tone
         16560 hangs up
        Agent: I am still trying to reach somebody. Thank you for waiting.
        Agent: Thank you for calling. Goodbye.
        MaxDuration
        asked 0 times, last with: "#]],
    );
}
