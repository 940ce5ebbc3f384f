//! Lists as the REST API gives them: pages with their two styles of links, and filters by time.
//! It does not know what is in a list.

use axum::http::StatusCode;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::form::Form;
use super::{Answer, Refusal, RestRequest};

const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 1_000;
/// The parameters that every list takes.
pub(super) const PAGING: [&str; 3] = ["PageSize", "Page", "PageToken"];

/// The part of a list that was asked for.
struct Page {
    number: usize,
    size: usize,
    shown: Vec<Value>,
    first: String,
    own: String,
    next: Option<String>,
}

impl RestRequest<'_> {
    /// One page of a list of 2010-04-01.
    pub(super) fn page(&self, key: &str, items: Vec<(String, Value)>) -> Answer {
        let Page { number, size, shown, first, own, next } = self.cut(items)?;
        let mut answer = json!({
            "page": number,
            "page_size": size,
            "start": number * size,
            "end": (number * size + shown.len()).saturating_sub(1),
            "first_page_uri": first,
            "next_page_uri": next,
            "previous_page_uri": null,
            "uri": own,
        });
        answer[key] = shown.into();
        Ok((StatusCode::OK, answer))
    }

    /// One page of a list of the newer hosts, whose links are whole URLs.
    pub(super) fn meta_page(&self, key: &str, items: Vec<(String, Value)>) -> Answer {
        let Page { number, size, shown, first, own, next } = self.cut(items)?;
        let mut answer = json!({"meta": {
            "page": number,
            "page_size": size,
            "first_page_url": self.url(&first),
            "next_page_url": next.map(|next| self.url(&next)),
            "previous_page_url": null,
            "url": self.url(&own),
            "key": key,
        }});
        answer[key] = shown.into();
        Ok((StatusCode::OK, answer))
    }

    /// The token names the last item of the page before, so that new items do not shift it.
    fn cut(&self, items: Vec<(String, Value)>) -> Result<Page, Refusal> {
        let size = (self.query.number("PageSize", DEFAULT_PAGE as u64)? as usize).clamp(1, MAX_PAGE);
        let number = self.query.number("Page", 0)? as usize;
        let token = self.query.value("PageToken");
        let begin = match token.and_then(|token| token.strip_prefix("PA")) {
            None if number == 0 => 0,
            None => return Err(Refusal::invalid(20001, "Page needs the PageToken of the page before")),
            Some(last) => {
                items.iter().position(|(sid, _)| sid == last).map_or(items.len(), |index| index + 1)
            }
        };
        let end = (begin + size).min(items.len());
        let link = |page: usize, token: Option<&str>| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(self.query.iter().filter(|(name, _)| !PAGING.contains(name)));
            query.append_pair("PageSize", &size.to_string()).append_pair("Page", &page.to_string());
            if let Some(token) = token {
                query.append_pair("PageToken", token);
            }
            format!("{}?{}", self.path, query.finish())
        };
        let next = (end < items.len())
            .then(|| link(number.saturating_add(1), Some(&format!("PA{}", items[end - 1].0))));
        let (first, own) = (link(0, None), link(number, token));
        let shown = items[begin..end].iter().map(|(_, item)| item.clone()).collect();
        Ok(Page { number, size, shown, first, own, next })
    }
}

/// The three forms of a time in a filter: on, until and from.
pub(super) struct TimeFilter {
    from: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl TimeFilter {
    pub(super) fn read(query: &Form, name: &str) -> Result<TimeFilter, Refusal> {
        let on = span(query, name)?;
        let from = span(query, &format!("{name}>"))?;
        let until = span(query, &format!("{name}<"))?;
        Ok(TimeFilter { from: from.or(on).map(|(begin, _)| begin), before: until.or(on).map(|(_, end)| end) })
    }

    /// A filter whose two ends have names of their own.
    pub(super) fn between(query: &Form, from: &str, until: &str) -> Result<TimeFilter, Refusal> {
        let (from, until) = (span(query, from)?, span(query, until)?);
        Ok(TimeFilter { from: from.map(|(begin, _)| begin), before: until.map(|(_, end)| end) })
    }

    pub(super) fn fits(&self, at: Option<Timestamp>) -> bool {
        if self.from.is_none() && self.before.is_none() {
            return true;
        }
        at.is_some_and(|at| {
            self.from.is_none_or(|from| at >= from) && self.before.is_none_or(|before| at < before)
        })
    }
}

fn span(query: &Form, name: &str) -> Result<Option<(Timestamp, Timestamp)>, Refusal> {
    let Some(text) = query.value(name) else { return Ok(None) };
    let span = span_of(text);
    span.map(Some).ok_or_else(|| Refusal::invalid(20001, format!("{name} is not a date: {text}")))
}

/// The time that a text names: a whole day, or one second.
fn span_of(text: &str) -> Option<(Timestamp, Timestamp)> {
    if let Ok(second) = text.parse::<Timestamp>() {
        return Some((second, second.checked_add(1.second()).ok()?));
    }
    let day: Date = text.parse().ok()?;
    let begin = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some((begin, begin.checked_add(24.hours()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_in_a_filter_is_the_whole_day() {
        let filter = TimeFilter::read(&Form::of(&[("StartTime", "2026-11-21")]), "StartTime").unwrap();
        assert!(filter.fits("2026-11-21T23:59:59Z".parse().ok()));
        assert!(!filter.fits("2026-11-22T00:00:00Z".parse().ok()));
        let filter = TimeFilter::read(&Form::of(&[("StartTime<", "2026-11-21")]), "StartTime").unwrap();
        assert!(filter.fits("2020-01-01T00:00:00Z".parse().ok()));
    }
}
