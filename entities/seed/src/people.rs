//! Accounts and their sign-ins. A few accounts sign in all the time, most now and then, some never. Not here: what
//! they do once they are in.

use entities::{Error, Role, id::UserId, session::EndReason};
use uuid::Uuid;

use crate::{
    Counts, DAY, DAYS, DemoAccount, HOUR, MINUTE, Micros,
    random::Random,
    sink::{Cell, Loader, Target},
};

/// Everyone, and every sign-in in the order of time.
pub(crate) struct People {
    /// The end of the demo data: the start of the day.
    pub(crate) now: Micros,
    pub(crate) users: Vec<User>,
    pub(crate) sessions: Vec<Session>,
}

pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) role: Role,
    pub(crate) is_active: bool,
    pub(crate) created: Micros,
    last_login: Option<Micros>,
}

pub(crate) struct Session {
    pub(crate) id: Uuid,
    /// Index of the account.
    pub(crate) user: usize,
    pub(crate) created: Micros,
    pub(crate) last_activity: Micros,
    expires: Micros,
    /// When it was ended, and why.
    pub(crate) end: Option<(Micros, EndReason)>,
    mobile: bool,
}

/// Live sessions of one account.
const MOST_LIVE: u32 = 20;

/// Idle time after which a session expires.
const IDLE: Micros = 14 * DAY;

/// How sessions are ended, as often as each stands here; the first ones are all different, so that the smallest
/// seed has each.
const ENDS: [EndReason; 12] = [
    EndReason::SignedOut,
    EndReason::RevokedByUser,
    EndReason::CredentialsChanged,
    EndReason::RevokedByAdmin,
    EndReason::TokenReuse,
    EndReason::SignedOut,
    EndReason::SignedOut,
    EndReason::RevokedByUser,
    EndReason::SignedOut,
    EndReason::SignedOut,
    EndReason::CredentialsChanged,
    EndReason::SignedOut,
];

pub(crate) fn demo_accounts() -> Vec<DemoAccount> {
    let accounts = [
        ("admin@example.com", "Ada Admin", Role::Admin),
        ("manager@example.com", "Minh Manager", Role::Manager),
        ("editor@example.com", "Emma Editor", Role::Editor),
        ("collector@example.com", "Chi Collector", Role::Collector),
        ("viewer@example.com", "Vera Viewer", Role::Viewer),
    ];
    let first = Uuid::from_u128(0x0189_0000_0000_7000_8000_0000_0000_0001).as_u128();
    let ids = (first..).map(|id| UserId(Uuid::from_u128(id)));
    ids.zip(accounts)
        .map(|(id, (email, display_name, role))| DemoAccount { id, email, display_name, role })
        .collect()
}

pub(crate) fn plan(counts: Counts, now: Micros) -> People {
    let mut users = users(counts.users, now);
    let sessions = sessions(counts.sessions, &users, now);
    for session in &sessions {
        users[session.user].last_login = Some(session.created);
    }
    People { now, users, sessions }
}

fn users(count: usize, now: Micros) -> Vec<User> {
    let mut random = Random::of("users");
    let demo = demo_accounts();
    let (first, span) = (now - DAYS * DAY, DAYS * DAY - 6 * HOUR);
    (0..count)
        .map(|index| {
            // A little faster at the end than at the start, and in order of time.
            let share = ((index as f64 + random.unit()) / count as f64).powf(0.8);
            let created = first + (span as f64 * share) as Micros;
            let (id, drawn) = (random.id(created), role(random.unit()));
            let blocked = random.chance(0.03);
            match demo.get(index) {
                Some(account) => {
                    User { id: account.id.0, role: account.role, is_active: true, created, last_login: None }
                }
                None => User { id, role: drawn, is_active: !blocked, created, last_login: None },
            }
        })
        .collect()
}

fn role(share: f64) -> Role {
    match share {
        0.0..0.003 => Role::Admin,
        0.003..0.03 => Role::Manager,
        0.03..0.18 => Role::Editor,
        0.18..0.88 => Role::Collector,
        _ => Role::Viewer,
    }
}

fn sessions(count: usize, users: &[User], now: Micros) -> Vec<Session> {
    let mut random = Random::of("sessions");
    let mut sessions: Vec<Session> = (0..count)
        .map(|index| {
            let user = whose(index, users.len(), &mut random);
            session(user, &users[user], now, &mut random)
        })
        .collect();
    sessions.sort_by_key(|session| (session.created, session.id));
    let ended = (0..sessions.len()).filter(|index| index % 20 < 9);
    for (index, reason) in ended.zip(ENDS.into_iter().cycle()) {
        let session = &mut sessions[index];
        let at = (session.last_activity + random.between(0, 8 * HOUR)).min(now);
        session.end.get_or_insert((at, reason));
    }
    expire(&mut sessions, users.len(), now);
    sessions
}

/// Nearly everybody once; what is left mostly by a few.
fn whose(index: usize, users: usize, random: &mut Random) -> usize {
    let user = if index < users { index } else { random.skewed(users, 2) * 7_919 % users };
    // Every twentieth never signed in.
    if user % 20 == 11 { user - 1 } else { user }
}

fn session(index: usize, user: &User, now: Micros, random: &mut Random) -> Session {
    let latest = now - 10 * MINUTE;
    let age = (latest - user.created) as f64 * random.unit().powf(1.5);
    let created = latest - age as Micros;
    let mobile = random.chance(0.6);
    let use_time = if mobile {
        (30.0 * DAY as f64 * random.unit().powi(3)) as Micros
    } else {
        random.between(2 * MINUTE, 4 * HOUR)
    };
    let last_activity = (created + use_time).min(now - random.between(1, 10 * MINUTE));
    let end = (!user.is_active).then_some((last_activity, EndReason::RevokedByAdmin));
    let (id, expires) = (random.id(created), last_activity + IDLE);
    Session { id, user: index, created, last_activity, expires, end, mobile }
}

/// Ends what was not used for too long or is one too many; a few expired ones are still to be found as such.
fn expire(sessions: &mut [Session], users: usize, now: Micros) {
    let mut live = vec![0; users];
    for (index, session) in sessions.iter_mut().enumerate().rev().filter(|(_, session)| session.end.is_none())
    {
        if session.expires > now {
            live[session.user] += 1;
            if live[session.user] > MOST_LIVE {
                session.end = Some((session.last_activity, EndReason::Expired));
            }
        } else if index % 10 > 0 {
            session.end = Some((session.expires, EndReason::Expired));
        }
    }
}

impl People {
    /// Sessions of accounts that may submit and record.
    pub(crate) fn working(&self) -> Vec<usize> {
        let working = |session: &Session| self.users[session.user].role != Role::Viewer;
        (0..self.sessions.len()).filter(|index| working(&self.sessions[*index])).collect()
    }

    pub(crate) async fn load(&self, loader: &mut Loader<'_>) -> Result<(), Error> {
        const USERS: Target = Target {
            table: "users",
            columns: &[
                "id",
                "email",
                "display_name",
                "search_name",
                "role",
                "is_active",
                "created_at",
                "updated_at",
                "last_login",
            ],
        };
        const SESSIONS: Target = Target {
            table: "user_sessions",
            columns: &[
                "id",
                "user_id",
                "is_active",
                "name",
                "ip_address",
                "user_agent",
                "created_at",
                "last_activity",
                "expires_at",
                "revoked_at",
                "end_reason",
            ],
        };
        let (mut random, demo) = (Random::of("names"), demo_accounts());
        let users = self.users.iter().enumerate();
        let users = users.map(|(index, user)| self.user_row(index, user, demo.get(index), &mut random));
        loader.load(&USERS, self.users.len(), users).await?;

        let mut random = Random::of("devices");
        let sessions = self.sessions.iter().map(|session| self.session_row(session, &mut random));
        loader.load(&SESSIONS, self.sessions.len(), sessions).await
    }

    fn user_row(
        &self,
        index: usize,
        user: &User,
        demo: Option<&DemoAccount>,
        random: &mut Random,
    ) -> [Cell; 9] {
        let (mut display_name, mut email) = name(index, random);
        if let Some(demo) = demo {
            (display_name, email) = (demo.display_name.to_owned(), demo.email.to_owned());
        }
        let search_name = display_name.to_lowercase();
        let changed = if random.chance(0.3) { random.between(user.created, self.now) } else { user.created };
        [
            user.id.into(),
            email.into(),
            display_name.into(),
            search_name.into(),
            user.role.as_str().into(),
            user.is_active.into(),
            Cell::Time(user.created),
            Cell::Time(changed),
            user.last_login.map_or(Cell::Null, Cell::Time),
        ]
    }

    fn session_row(&self, session: &Session, random: &mut Random) -> [Cell; 11] {
        let (names, agents) = if session.mobile { (PHONES, PHONE_AGENTS) } else { (DESKS, DESK_AGENTS) };
        let name = random.chance(0.25).then(|| *random.pick(&names));
        let (ended, reason) = session.end.unzip();
        [
            session.id.into(),
            self.users[session.user].id.into(),
            session.end.is_none().into(),
            name.into(),
            address(random).into(),
            (*random.pick(&agents)).into(),
            Cell::Time(session.created),
            Cell::Time(session.last_activity),
            Cell::Time(session.expires),
            ended.map_or(Cell::Null, Cell::Time),
            reason.map(EndReason::as_str).into(),
        ]
    }
}

/// A name and an address that is like it; the number keeps addresses apart.
fn name(index: usize, random: &mut Random) -> (String, String) {
    let host = random.pick(&["example.com", "example.org", "example.net"]);
    if random.chance(0.75) {
        let ((family, family_plain), (given, given_plain)) = (random.pick(&FAMILIES), random.pick(&GIVEN));
        let middle = random.pick(&["Văn", "Thị", "Minh", "Thanh", "Ngọc", "Hữu", "Thu", "Quốc"]);
        (format!("{family} {middle} {given}"), format!("{given_plain}.{family_plain}{index}@{host}"))
    } else {
        let (first, last) = (random.pick(&FIRST), random.pick(&LAST));
        let email = format!("{}.{}{index}@{host}", first.to_lowercase(), last.to_lowercase());
        (format!("{first} {last}"), email)
    }
}

/// From the ranges for documentation (RFC 5737, RFC 3849).
fn address(random: &mut Random) -> String {
    let low = random.between(1, 254);
    match random.below(4) {
        0 => format!("192.0.2.{low}"),
        1 => format!("198.51.100.{low}"),
        2 => format!("203.0.113.{low}"),
        _ => format!("2001:db8:{:x}::{low:x}", random.between(1, 0xffff)),
    }
}

const FAMILIES: [(&str, &str); 14] = [
    ("Nguyễn", "nguyen"),
    ("Trần", "tran"),
    ("Lê", "le"),
    ("Phạm", "pham"),
    ("Hoàng", "hoang"),
    ("Phan", "phan"),
    ("Vũ", "vu"),
    ("Đặng", "dang"),
    ("Bùi", "bui"),
    ("Đỗ", "do"),
    ("Hồ", "ho"),
    ("Ngô", "ngo"),
    ("Dương", "duong"),
    ("Lý", "ly"),
];

const GIVEN: [(&str, &str); 20] = [
    ("An", "an"),
    ("Bình", "binh"),
    ("Chi", "chi"),
    ("Dũng", "dung"),
    ("Đức", "duc"),
    ("Giang", "giang"),
    ("Hà", "ha"),
    ("Hiếu", "hieu"),
    ("Hương", "huong"),
    ("Khánh", "khanh"),
    ("Lan", "lan"),
    ("Linh", "linh"),
    ("Mai", "mai"),
    ("Nam", "nam"),
    ("Phúc", "phuc"),
    ("Quân", "quan"),
    ("Sơn", "son"),
    ("Trang", "trang"),
    ("Tuấn", "tuan"),
    ("Yến", "yen"),
];

const FIRST: [&str; 16] = [
    "Alice",
    "Benjamin",
    "Charlotte",
    "Daniel",
    "Eleanor",
    "Frank",
    "Grace",
    "Henry",
    "Isla",
    "James",
    "Katherine",
    "Liam",
    "Maya",
    "Noah",
    "Olivia",
    "Samuel",
];

const LAST: [&str; 16] = [
    "Adams", "Baker", "Carter", "Davies", "Evans", "Fisher", "Green", "Hughes", "Jackson", "Khan", "Lewis",
    "Murphy", "Patel", "Roberts", "Taylor", "Walker",
];

const PHONES: [&str; 4] = ["Work phone", "Điện thoại", "Tablet", "Field phone"];
const DESKS: [&str; 4] = ["Office", "Laptop", "Home", "Máy tính văn phòng"];

const PHONE_AGENTS: [&str; 4] = [
    "XP Field/4.2.1 (Android 14; Pixel 8)",
    "XP Field/4.1.0 (Android 13; SM-A546E)",
    "XP Field/4.2.1 (iOS 18.1; iPhone15,2)",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
     Version/18.1 Mobile/15E148 Safari/604.1",
];

const DESK_AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 \
     Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 \
     Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 \
     Safari/537.36 Edg/139.0.0.0",
];
