//! Filled-in forms: few forms get most of them. Some carry the position where they were filled in, some come from
//! accounts that are gone.

use entities::Error;
use uuid::Uuid;

use crate::{
    Counts, MINUTE, Micros, SECOND, answers,
    forms::Forms,
    people::People,
    random::Random,
    sink::{Cell, Loader, Target},
    tracks::{self, Fix},
};

/// Every submission in the order of time.
pub(crate) struct Submissions(pub(crate) Vec<Submission>);

pub(crate) struct Submission {
    pub(crate) id: Uuid,
    pub(crate) form: usize,
    pub(crate) session: usize,
    pub(crate) at: Micros,
    /// Its account was removed.
    pub(crate) orphaned: bool,
}

pub(crate) fn plan(counts: Counts, people: &People, forms: &Forms) -> Submissions {
    let mut random = Random::of("submissions");
    let (working, published) = (people.working(), forms.published());
    let mut submissions: Vec<Submission> = (0..counts.submissions)
        .map(|_| {
            let form = published[random.skewed(published.len(), 3)];
            let opened = forms.forms[form].versions[0].published;
            // Any session that began since the form was there; else the newest one.
            let since = working.partition_point(|index| people.sessions[*index].created < opened);
            let since = since.min(working.len() - 1);
            let session = working[since + random.below(working.len() - since)];
            let (from, to) = (people.sessions[session].created, people.sessions[session].last_activity);
            let at = random.between(from, to).max(opened);
            Submission { id: random.id(at), form, session, at, orphaned: random.chance(0.01) }
        })
        .collect();
    submissions.sort_by_key(|submission| (submission.at, submission.id));
    Submissions(submissions)
}

impl Submissions {
    /// Answers the positions where forms were filled in.
    pub(crate) async fn load(
        &self,
        loader: &mut Loader<'_>,
        people: &People,
        forms: &Forms,
    ) -> Result<Vec<Fix>, Error> {
        const SUBMISSIONS: Target = Target {
            table: "form_submissions",
            columns: &[
                "id",
                "form_id",
                "form_version",
                "user_id",
                "session_id",
                "client_id",
                "data",
                "location_id",
                "created_at",
            ],
        };
        let mut random = Random::of("answers");
        let mut places = Vec::new();
        let rows = self.0.iter().map(|submission| {
            let place =
                (!submission.orphaned && random.chance(0.2)).then(|| place(submission, people, &mut random));
            let location = place.as_ref().map(|fix| fix.id);
            places.extend(place);
            row(submission, location, people, forms, &mut random)
        });
        loader.load(&SUBMISSIONS, self.0.len(), rows).await?;
        Ok(places)
    }
}

fn row(
    submission: &Submission,
    location: Option<Uuid>,
    people: &People,
    forms: &Forms,
    random: &mut Random,
) -> [Cell; 9] {
    let form = &forms.forms[submission.form];
    let session = &people.sessions[submission.session];
    let number = form.version_at(submission.at).max(1);
    let fields = forms.fields(form, form.versions[number - 1].fields);
    let here = (!submission.orphaned).then_some(session);
    [
        submission.id.into(),
        form.id.into(),
        Cell::Int(number as i32),
        here.map(|session| people.users[session.user].id).into(),
        here.map(|session| session.id).into(),
        random.chance(0.7).then(|| random.id(submission.at - 5 * MINUTE)).into(),
        Cell::Json(answers::fill_in(fields, submission.at, random).to_string()),
        location.into(),
        Cell::Time(submission.at),
    ]
}

/// Where the device was while the form was filled in.
fn place(submission: &Submission, people: &People, random: &mut Random) -> Fix {
    let at = submission.at - random.between(SECOND, 50 * SECOND);
    let user = people.sessions[submission.session].user;
    let (latitude, longitude) = tracks::near_home(user, random);
    Fix {
        id: random.id(at),
        session: submission.session,
        at,
        received: submission.at,
        latitude,
        longitude,
        accuracy: random.between(30, 400) as f64 / 10.0,
        altitude: None,
        speed: None,
        heading: None,
    }
}
