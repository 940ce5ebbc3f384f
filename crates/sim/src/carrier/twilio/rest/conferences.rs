//! Conferences of the REST API and who is in them: listed, read, muted, put out and ended.
//! Rooms are made by documents alone; nothing here lets anybody in.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::conference::{Leaving, Member, Room};
use super::super::rfc2822;
use super::form::Form;
use super::page::TimeFilter;
use super::{Answer, Refusal, RestRequest, done};

impl RestRequest<'_> {
    /// What is below `Conferences`; a form where something is to be changed.
    pub(super) fn conferences(&self, method: &Method, resource: &[&str], form: Option<&Form>) -> Answer {
        let deletes = *method == Method::DELETE;
        match (resource, form) {
            ([], None) if !deletes => self.conference_list(),
            ([sid], None) if !deletes => Ok((StatusCode::OK, self.conference_json(&*self.room(sid)?))),
            ([sid], Some(form)) => self.update_conference(sid, form),
            ([sid, "Participants"], None) if !deletes => self.participants(sid),
            ([sid, "Participants", call], None) if deletes => {
                let (room, member) = self.participant(sid, call)?;
                room.leave(&member.call.sid, Leaving::Kicked);
                done()
            }
            ([sid, "Participants", call], None) => {
                let (room, member) = self.participant(sid, call)?;
                Ok((StatusCode::OK, self.participant_json(&room, &member)))
            }
            ([sid, "Participants", call], Some(form)) => self.update_participant(sid, call, form),
            ([_] | [_, "Participants"], _) => Err(Refusal::not_allowed()),
            _ => Err(Refusal::not_found(self.path)),
        }
    }

    fn conference_list(&self) -> Answer {
        const KNOWN: [&str; 11] = [
            "DateCreated",
            "DateCreated<",
            "DateCreated>",
            "DateUpdated",
            "DateUpdated<",
            "DateUpdated>",
            "FriendlyName",
            "Status",
            "PageSize",
            "Page",
            "PageToken",
        ];
        self.query.only(&KNOWN)?;
        let created = TimeFilter::read(&self.query, "DateCreated")?;
        let updated = TimeFilter::read(&self.query, "DateUpdated")?;
        let is = |name: &str, value: &str| self.query.value(name).is_none_or(|wished| wished == value);
        let rooms = self.sim.lock().rooms.clone();
        let fitting = rooms.iter().rev().filter(|room| {
            let facts = room.lock();
            is("FriendlyName", &room.name)
                && is("Status", facts.status.as_str())
                && created.fits(Some(facts.created))
                && updated.fits(Some(facts.updated))
        });
        let items = fitting.map(|room| (room.sid.clone(), self.conference_json(room))).collect();
        self.page("conferences", items)
    }

    fn room(&self, sid: &str) -> Result<Arc<Room>, Refusal> {
        let found = self.sim.lock().rooms.iter().find(|room| room.sid == sid).cloned();
        found.ok_or_else(|| Refusal::not_found(self.path))
    }

    fn update_conference(&self, sid: &str, form: &Form) -> Answer {
        form.only(&["Status", "AnnounceUrl", "AnnounceMethod"])?;
        let room = self.room(sid)?;
        match form.value("Status") {
            Some("completed") => room.complete(),
            Some(other) => return Err(Refusal::invalid(20001, format!("Status cannot be set to {other}"))),
            None => {}
        }
        Ok((StatusCode::OK, self.conference_json(&room)))
    }

    fn participants(&self, sid: &str) -> Answer {
        self.query.only(&["Muted", "Hold", "Coaching", "PageSize", "Page", "PageToken"])?;
        let room = self.room(sid)?;
        let members = room.lock().members.clone();
        let items =
            members.iter().map(|member| (member.call.sid.clone(), self.participant_json(&room, member)));
        self.page("participants", items.collect())
    }

    /// One that is in a room, by its call or its label.
    fn participant(&self, sid: &str, call: &str) -> Result<(Arc<Room>, Member), Refusal> {
        let room = self.room(sid)?;
        let named = |member: &&Member| member.call.sid == call || member.label.as_deref() == Some(call);
        let found = room.lock().members.iter().find(named).cloned();
        let member = found.ok_or_else(|| Refusal::not_found(self.path))?;
        Ok((room, member))
    }

    fn update_participant(&self, sid: &str, call: &str, form: &Form) -> Answer {
        form.only(&["Muted", "Hold", "HoldUrl", "HoldMethod", "EndConferenceOnExit", "BeepOnExit"])?;
        let (room, member) = self.participant(sid, call)?;
        let (muted, hold) = (form.flag("Muted")?, form.flag("Hold")?);
        let changed = room.change(&member.call.sid, muted, hold, form.flag("EndConferenceOnExit")?);
        let member = changed.ok_or_else(|| Refusal::not_found(self.path))?;
        Ok((StatusCode::OK, self.participant_json(&room, &member)))
    }

    fn conference_json(&self, room: &Room) -> Value {
        let uri = format!("{}/Conferences/{}", self.account_path(), room.sid);
        let facts = room.lock();
        let (reason, by) = facts.ended.clone().unzip();
        json!({
            "sid": room.sid,
            "account_sid": self.account(),
            "friendly_name": room.name,
            "status": facts.status.as_str(),
            "region": "us1",
            "api_version": "2010-04-01",
            "date_created": rfc2822(facts.created),
            "date_updated": rfc2822(facts.updated),
            "reason_conference_ended": reason,
            "call_sid_ending_conference": by.flatten(),
            "uri": format!("{uri}.json"),
            "subresource_uris": {
                "participants": format!("{uri}/Participants.json"),
                "recordings": format!("{uri}/Recordings.json"),
            },
        })
    }

    fn participant_json(&self, room: &Room, member: &Member) -> Value {
        let call_sid = &member.call.sid;
        json!({
            "account_sid": self.account(),
            "call_sid": call_sid,
            "label": member.label,
            "conference_sid": room.sid,
            "call_sid_to_coach": null,
            "coaching": false,
            "muted": member.muted,
            "hold": member.hold,
            "status": "connected",
            "start_conference_on_enter": member.starts,
            "end_conference_on_exit": member.ends,
            "queue_time": "0",
            "date_created": rfc2822(member.entered),
            "date_updated": rfc2822(member.entered),
            "uri": format!("{}/Conferences/{}/Participants/{call_sid}.json", self.account_path(), room.sid),
        })
    }
}
