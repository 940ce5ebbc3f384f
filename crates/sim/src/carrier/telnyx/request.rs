//! What a request to the API may hold, and the errors that it gets otherwise. A parameter or a field that the documents do not name is
//! refused, and so is one of another type. It knows no resource.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

const DEFAULT_PAGE: usize = 20;
const MAX_PAGE: usize = 250;

/// An error of the API.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    source: Option<(&'static str, String)>,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Refusal {
        Refusal { status, code, title, detail: detail.into(), source: None }
    }

    /// 422: understood, and not possible.
    pub(super) fn unprocessable(
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Refusal {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, title, detail)
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "10015", "Bad Request", detail)
    }

    pub(super) fn not_found() -> Refusal {
        let detail = "The requested resource or URL could not be found.";
        Refusal::new(StatusCode::NOT_FOUND, "10005", "Resource not found", detail)
    }

    pub(super) fn not_e164(field: &str) -> Refusal {
        let detail = format!("The '{field}' parameter must be in E164 format.");
        Refusal::unprocessable("10016", "Phone number must be in +E164 format", detail).at(field)
    }

    /// Names the field of the body that is wrong.
    pub(super) fn at(mut self, field: &str) -> Refusal {
        self.source = Some(("pointer", format!("/{field}")));
        self
    }

    fn at_parameter(mut self, name: &str) -> Refusal {
        self.source = Some(("parameter", name.to_owned()));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal { status, code, title, detail, source } = self;
        let url = format!("https://developers.telnyx.com/docs/overview/errors/{code}");
        let mut error = json!({"code": code, "title": title, "detail": detail, "meta": {"url": url}});
        if let Some((kind, place)) = source {
            error["source"] = json!({kind: place});
        }
        (status, axum::Json(json!({"errors": [error]}))).into_response()
    }
}

/// What a field of a body may be.
#[derive(Clone)]
pub(super) enum Kind {
    Text,
    /// Absolute, `http` or `https`.
    WebUrl,
    Flag,
    Whole(std::ops::RangeInclusive<i64>),
    OneOf(&'static [&'static str]),
    TextOrTexts,
    Texts,
    Object(&'static [Field]),
    Objects(&'static [Field]),
    /// Anything: what it holds has no effect here.
    Any,
}

/// A field that a body may have.
pub(super) struct Field {
    name: &'static str,
    kind: Kind,
    required: bool,
    nullable: bool,
}

impl Field {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Field {
        Field { name, kind, required: false, nullable: false }
    }

    pub(super) const fn text(name: &'static str) -> Field {
        Field::new(name, Kind::Text)
    }

    pub(super) const fn flag(name: &'static str) -> Field {
        Field::new(name, Kind::Flag)
    }

    pub(super) const fn any(name: &'static str) -> Field {
        Field::new(name, Kind::Any)
    }

    pub(super) const fn one_of(name: &'static str, values: &'static [&'static str]) -> Field {
        Field::new(name, Kind::OneOf(values))
    }

    pub(super) const fn whole(name: &'static str, range: std::ops::RangeInclusive<i64>) -> Field {
        Field::new(name, Kind::Whole(range))
    }

    pub(super) const fn required(self) -> Field {
        Field { required: true, ..self }
    }

    pub(super) const fn or_null(self) -> Field {
        Field { nullable: true, ..self }
    }

    /// The same where nothing is required.
    pub(super) fn optional(&self) -> Field {
        Field { name: self.name, kind: self.kind.clone(), required: false, nullable: self.nullable }
    }

    fn check(&self, value: &Value, place: &str) -> Result<(), Refusal> {
        let wrong_type = |kind: &str| {
            let detail = format!("The '{place}' parameter must be of type '{kind}'");
            Err(Refusal::unprocessable("10026", "Invalid parameter type", detail).at(place))
        };
        if value.is_null() && self.nullable {
            return Ok(());
        }
        match (&self.kind, value) {
            (Kind::Any, _) | (Kind::Text, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => Ok(()),
            (Kind::TextOrTexts, Value::String(_)) => Ok(()),
            (Kind::TextOrTexts | Kind::Texts, Value::Array(all)) if all.iter().all(Value::is_string) => {
                Ok(())
            }
            (Kind::WebUrl, Value::String(url)) if url.is_empty() || is_web_url(url) => Ok(()),
            (Kind::WebUrl, Value::String(_)) => {
                let detail = format!("The '{place}' parameter is not a valid URL.");
                Err(Refusal::unprocessable("10003", "Invalid URL", detail).at(place))
            }
            (Kind::OneOf(values), Value::String(value)) if values.contains(&value.as_str()) => Ok(()),
            (Kind::OneOf(values), Value::String(_)) => {
                let detail = format!("The value must be one of: {}.", values.join(", "));
                Err(Refusal::unprocessable("10032", "Invalid enumerated value", detail).at(place))
            }
            (Kind::Whole(range), Value::Number(number)) if number.is_i64() || number.is_u64() => {
                if number.as_i64().is_some_and(|number| range.contains(&number)) {
                    return Ok(());
                }
                let detail =
                    format!("The value is outside of allowed range {} to {}", range.start(), range.end());
                Err(Refusal::unprocessable("10033", "Value outside of range", detail).at(place))
            }
            (Kind::Object(fields), Value::Object(object)) => check_all(&[fields], object, place),
            (Kind::Objects(fields), Value::Array(objects)) => {
                for (n, object) in objects.iter().enumerate() {
                    let place = format!("{place}/{n}");
                    let Value::Object(object) = object else { return wrong_type("object") };
                    check_all(&[fields], object, &place)?;
                }
                Ok(())
            }
            (Kind::Text | Kind::WebUrl | Kind::OneOf(_) | Kind::TextOrTexts, _) => wrong_type("string"),
            (Kind::Flag, _) => wrong_type("boolean"),
            (Kind::Whole(_), _) => wrong_type("integer"),
            (Kind::Texts | Kind::Objects(_), _) => wrong_type("array"),
            (Kind::Object(_), _) => wrong_type("object"),
        }
    }
}

fn check_all(families: &[&[Field]], object: &Map<String, Value>, inside: &str) -> Result<(), Refusal> {
    let place = |name: &str| if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
    for (name, value) in object {
        let place = place(name);
        let field = families.iter().copied().flatten().find(|field| field.name == name);
        let unknown = || Refusal::bad_request(format!("Unknown parameter '{place}'.")).at(&place);
        field.ok_or_else(unknown)?.check(value, &place)?;
    }
    for field in families.iter().copied().flatten().filter(|field| field.required) {
        let given = object.get(field.name);
        if given.is_none_or(|value| value.is_null() || value.as_str().is_some_and(str::is_empty)) {
            let place = place(field.name);
            let detail = format!("The '{place}' parameter is required and cannot be blank.");
            return Err(Refusal::unprocessable("10004", "Missing required parameter", detail).at(&place));
        }
    }
    Ok(())
}

pub(super) fn is_web_url(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// The checked fields of a body.
#[derive(Debug, Default)]
pub(super) struct Body(pub(super) Map<String, Value>);

impl Body {
    pub(super) fn read(families: &[&[Field]], headers: &HeaderMap, body: &[u8]) -> Result<Body, Refusal> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if body.is_empty() {
            check_all(families, &Map::new(), "")?;
            return Ok(Body::default());
        }
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            let detail = format!("The content type is \"{kind}\" and not application/json.");
            return Err(Refusal::bad_request(detail));
        }
        let malformed = |_| Refusal::bad_request("The request failed because it was not well-formed.").at("");
        let object: Map<String, Value> = serde_json::from_slice(body).map_err(malformed)?;
        check_all(families, &object, "")?;
        Ok(Body(object))
    }

    /// A text that was given and is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn whole(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or(default)
    }
}

/// The decoded query.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query that may hold these parameters and no others.
    pub(super) fn read(query: &str, known: &[&str]) -> Result<Query, Refusal> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        for (name, _) in &pairs {
            if !known.contains(&name.as_str()) {
                let detail = format!("Unknown parameter '{name}'.");
                return Err(Refusal::bad_request(detail).at_parameter(name));
            }
        }
        Ok(Query(pairs))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, value)| known == name && !value.is_empty());
        pair.map(|(_, value)| value.as_str())
    }

    /// The values of a list, however it was written: repeated, with brackets, or with commas.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let is_it = |known: &str| known.strip_suffix("[]").unwrap_or(known) == name;
        self.0.iter().filter(|(known, _)| is_it(known)).flat_map(|(_, value)| value.split(',')).collect()
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.wrong_type(name, "boolean")),
        }
    }

    pub(super) fn whole(&self, name: &str, default: usize) -> Result<usize, Refusal> {
        let wrong = |_| self.wrong_type(name, "integer");
        self.value(name).map_or(Ok(default), |value| value.parse().map_err(wrong))
    }

    fn wrong_type(&self, name: &str, kind: &str) -> Refusal {
        let detail = format!("The '{name}' parameter must be of type '{kind}'");
        Refusal::unprocessable("10026", "Invalid parameter type", detail).at_parameter(name)
    }

    /// The page of a list that was asked for.
    pub(super) fn page(&self, all: Vec<Value>) -> Result<Value, Refusal> {
        let number = self.whole("page[number]", 1)?;
        let size = self.whole("page[size]", DEFAULT_PAGE)?;
        for (name, value, most) in [("page[number]", number, usize::MAX), ("page[size]", size, MAX_PAGE)] {
            if value == 0 || value > most {
                let detail = format!("The value is outside of allowed range 1 to {most}");
                let refusal = Refusal::unprocessable("10033", "Value outside of range", detail);
                return Err(refusal.at_parameter(name));
            }
        }
        let total = all.len();
        let data: Vec<Value> = all.into_iter().skip((number - 1).saturating_mul(size)).take(size).collect();
        let meta = json!({
            "total_pages": total.div_ceil(size),
            "total_results": total,
            "page_number": number,
            "page_size": size,
        });
        Ok(json!({"data": data, "meta": meta}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field::text("name").required(),
        Field::new("url", Kind::WebUrl).or_null(),
        Field::whole("secs", 0..=30),
        Field::one_of("version", &["1", "2"]),
        Field::new("inner", Kind::Object(&[Field::flag("on")])),
        Field::new("list", Kind::Objects(&[Field::text("value").required()])),
    ];

    fn code(body: &str) -> &'static str {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        Body::read(&[FIELDS], &headers, body.as_bytes()).map_or_else(|refusal| refusal.code, |_| "")
    }

    #[test]
    fn each_way_to_be_wrong_has_its_code() {
        for (body, expected) in [
            (
                r#"{"name":"a","url":null,"secs":30,"version":"2","inner":{"on":true},"list":[{"value":"x"}]}"#,
                "",
            ),
            (r#"{"name":"a","colour":"red"}"#, "10015"),
            (r#"{"name":"a","inner":{"off":true}}"#, "10015"),
            (r#"{"name":"a""#, "10015"),
            (r#"{"name":7}"#, "10026"),
            (r#"{"name":"a","secs":"30"}"#, "10026"),
            (r#"{"name":"a","list":["x"]}"#, "10026"),
            (r#"{"name":"a","secs":31}"#, "10033"),
            (r#"{"name":"a","version":"3"}"#, "10032"),
            (r#"{"name":"a","url":"offhook.example"}"#, "10003"),
            (r#"{"name":""}"#, "10004"),
            (r#"{"name":"a","list":[{}]}"#, "10004"),
            ("", "10004"),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
    }

    #[test]
    fn a_form_is_no_json() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "text/plain".parse().unwrap())]);
        assert_eq!(Body::read(&[FIELDS], &headers, br#"{"name":"a"}"#).unwrap_err().code, "10015");
    }

    #[test]
    fn a_page_is_cut_out_and_its_bounds_are_kept() {
        let all: Vec<Value> = (1..=5).map(Value::from).collect();
        let known = ["page[number]", "page[size]"];
        let query = Query::read("page%5Bnumber%5D=2&page%5Bsize%5D=2", &known).unwrap();
        let page = query.page(all.clone()).unwrap();
        assert_eq!(page["data"], json!([3, 4]));
        assert_eq!(page["meta"]["total_pages"], 3);
        let query = Query::read("page[size]=251", &known).unwrap();
        assert_eq!(query.page(all).unwrap_err().code, "10033");
        assert_eq!(Query::read("page=1", &known).err().unwrap().code, "10015");
    }
}
