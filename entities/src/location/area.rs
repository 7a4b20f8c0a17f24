//! Areas on the globe as conditions: boxes (also across the 180th meridian) and circles (great-circle distance on a
//! sphere of the mean radius; within 0.6 % of the ellipsoid). The same arithmetic runs on both databases.

use serde::Serialize;

use super::Column;
use crate::database::sql::Sql;

/// Mean radius of the Earth, metres (IUGG).
pub const EARTH_RADIUS: f64 = 6_371_008.8;

/// A part of the globe. Degrees and metres; made by `Area::in_box` or `Area::circle`, which check them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Area {
    /// Between two meridians and two parallels, edges included.
    Box {
        /// Western edge.
        west: f64,
        /// Southern edge.
        south: f64,
        /// Eastern edge; smaller than `west` when the box crosses the 180th meridian.
        east: f64,
        /// Northern edge.
        north: f64,
    },
    /// Within a distance of a point.
    Circle {
        /// The centre.
        latitude: f64,
        /// The centre.
        longitude: f64,
        /// Metres.
        radius: f64,
    },
}

impl Area {
    /// A box, or what is wrong with it.
    ///
    /// # Errors
    /// A sentence that names the edge.
    pub fn in_box(west: f64, south: f64, east: f64, north: f64) -> Result<Self, String> {
        for (name, value) in [("west", west), ("east", east)] {
            longitude(name, value)?;
        }
        for (name, value) in [("south", south), ("north", north)] {
            latitude(name, value)?;
        }
        if south > north {
            return Err("`south` must not lie north of `north`".to_owned());
        }
        Ok(Self::Box { west, south, east, north })
    }

    /// A circle, or what is wrong with it.
    ///
    /// # Errors
    /// A sentence that names the value.
    pub fn circle(centre_latitude: f64, centre_longitude: f64, radius: f64) -> Result<Self, String> {
        latitude("latitude", centre_latitude)?;
        longitude("longitude", centre_longitude)?;
        let half_way_round = EARTH_RADIUS * std::f64::consts::PI;
        if !(radius > 0.0 && radius <= half_way_round) {
            return Err(format!("`radius` must be more than 0 and at most {half_way_round:.0} metres"));
        }
        Ok(Self::Circle { latitude: centre_latitude, longitude: centre_longitude, radius })
    }

    /// The smallest box that holds the area: what an index can answer.
    fn bounds(&self) -> (f64, f64, f64, f64) {
        match *self {
            Self::Box { west, south, east, north } => (west, south, east, north),
            Self::Circle { latitude, longitude, radius } => {
                let angle = radius / EARTH_RADIUS;
                let (south, north) = (latitude - angle.to_degrees(), latitude + angle.to_degrees());
                let reach = (angle.sin() / latitude.to_radians().cos()).abs();
                // A circle that reaches a pole touches every meridian.
                if south <= -90.0 || north >= 90.0 || reach >= 1.0 {
                    return (-180.0, south.max(-90.0), 180.0, north.min(90.0));
                }
                let width = reach.asin().to_degrees();
                (wrap(longitude - width), south, wrap(longitude + width), north)
            }
        }
    }

    /// Is this point inside? The same as the statements below say.
    pub fn contains(&self, latitude: f64, longitude: f64) -> bool {
        let (west, south, east, north) = self.bounds();
        let (after, before) = (longitude >= west, longitude <= east);
        let between = if west > east { after || before } else { after && before };
        let near = match *self {
            Self::Box { .. } => true,
            Self::Circle { latitude: centre, longitude: meridian, radius } => {
                let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
                let bulge =
                    centre.to_radians().cos() * latitude.to_radians().cos() * half(longitude - meridian);
                half(latitude - centre) + bulge <= limit(radius)
            }
        };
        (south..=north).contains(&latitude) && between && near
    }

    /// ` AND …` over latitude and longitude, which both tables of positions have under these names.
    pub(crate) fn push(&self, sql: &mut Sql) {
        let (west, south, east, north) = self.bounds();
        sql.and(Column::Latitude).push(" BETWEEN ").bind(south).push(" AND ").bind(north);
        let crosses = west > east;
        sql.push(" AND (").column(Column::Longitude).push(" >= ").bind(west);
        sql.push(if crosses { " OR " } else { " AND " });
        sql.column(Column::Longitude).push(" <= ").bind(east).push(")");
        if let Self::Circle { latitude, longitude, radius } = *self {
            push_distance(sql, latitude, longitude, radius);
        }
    }

    /// ` AND …` as `push`, and again in the words of the spatial index on `point(longitude, latitude)`, which
    /// PostgreSQL has.
    pub(crate) fn push_indexed(&self, sql: &mut Sql) {
        self.push(sql);
        if !sql.is_postgres() {
            return;
        }
        let (west, south, east, north) = self.bounds();
        let parts: &[(f64, f64)] =
            if west > east { &[(west, 180.0), (-180.0, east)] } else { &[(west, east)] };
        sql.push(" AND (");
        for (index, (west, east)) in parts.iter().enumerate() {
            sql.push(if index > 0 { " OR " } else { "" });
            sql.push("point(").column(Column::Longitude).push(", ").column(Column::Latitude);
            sql.push(") <@ box(point(").bind(*west).push(", ").bind(south);
            sql.push("), point(").bind(*east).push(", ").bind(north).push("))");
        }
        sql.push(")");
    }
}

/// The haversine formula, rearranged so that everything that does not depend on the row is computed here.
fn push_distance(sql: &mut Sql, latitude: f64, longitude: f64, radius: f64) {
    sql.push(" AND power(sin(radians(").column(Column::Latitude).push(" - ").bind(latitude);
    sql.push(") / 2), 2) + ").bind(latitude.to_radians().cos());
    sql.push(" * cos(radians(").column(Column::Latitude).push(")) * power(sin(radians(");
    sql.column(Column::Longitude).push(" - ").bind(longitude).push(") / 2), 2) <= ").bind(limit(radius));
}

/// What the haversine formula gives at this distance.
fn limit(radius: f64) -> f64 {
    (radius / (2.0 * EARTH_RADIUS)).sin().powi(2)
}

fn wrap(longitude: f64) -> f64 {
    if longitude < -180.0 {
        longitude + 360.0
    } else if longitude > 180.0 {
        longitude - 360.0
    } else {
        longitude
    }
}

fn latitude(name: &str, value: f64) -> Result<(), String> {
    if (-90.0..=90.0).contains(&value) {
        Ok(())
    } else {
        Err(format!("`{name}` must be from -90 to 90 degrees"))
    }
}

fn longitude(name: &str, value: f64) -> Result<(), String> {
    if (-180.0..=180.0).contains(&value) {
        Ok(())
    } else {
        Err(format!("`{name}` must be from -180 to 180 degrees"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The angle between two directions from the middle of the globe, in metres on its surface: another way than the
    /// haversine formula.
    fn distance(one: (f64, f64), other: (f64, f64)) -> f64 {
        let direction = |(latitude, longitude): (f64, f64)| {
            let (latitude, longitude) = (latitude.to_radians(), longitude.to_radians());
            [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
        };
        let (a, b) = (direction(one), direction(other));
        let cross = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
        let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        cross.iter().map(|part| part * part).sum::<f64>().sqrt().atan2(dot) * EARTH_RADIUS
    }

    #[test]
    fn a_circle_filter_works_at_poles_and_the_antimeridian() {
        let mut inside = 0;
        let latitudes = [-90.0, -89.9, -60.0, -0.1, 0.0, 45.0, 84.0, 89.999, 90.0];
        let longitudes = [-180.0, -179.99, -90.0, 0.0, 13.4, 179.9, 180.0];
        let radii = [1.0, 500.0, 20_000.0, 700_000.0, 5_000_000.0, 10_007_543.0, 15_000_000.0, 20_015_000.0];
        for (centre, meridian, radius) in latitudes.into_iter().flat_map(|latitude| {
            longitudes
                .into_iter()
                .flat_map(move |longitude| radii.map(|radius| (latitude, longitude, radius)))
        }) {
            let area = Area::circle(centre, meridian, radius).expect("a circle");
            for (latitude, longitude) in (0..400).map(|index| {
                let (turn, far) = (f64::from(index) * 2.399_963, f64::from(index % 20) / 10.0);
                // Around the centre, at up to twice the radius, and all over the globe.
                let reach = (radius * far / EARTH_RADIUS).to_degrees();
                if index % 2 == 0 {
                    let latitude = (centre + reach * turn.sin()).clamp(-90.0, 90.0);
                    let east = meridian + reach * turn.cos() / latitude.to_radians().cos().max(1e-6);
                    (latitude, (east + 540.0).rem_euclid(360.0) - 180.0)
                } else {
                    ((turn * 7.0).sin() * 90.0, (turn * 11.0).cos() * 180.0)
                }
            }) {
                let far = distance((centre, meridian), (latitude, longitude));
                // At the very edge the two ways may round differently.
                if (far - radius).abs() > 0.5 {
                    let holds = area.contains(latitude, longitude);
                    assert_eq!(holds, far < radius, "{area:?} {latitude} {longitude}: {far}");
                    inside += usize::from(holds);
                }
            }
        }
        assert!(inside > 20_000, "{inside} points lie inside");
    }

    #[test]
    fn a_box_may_cross_the_180th_meridian_and_be_a_line() {
        for (area, inside, outside) in [
            ([170.0, -10.0, -170.0, 10.0], [(0.0, 180.0), (10.0, -180.0), (-10.0, 170.0)], (0.0, 0.0)),
            ([-180.0, -90.0, 180.0, 90.0], [(90.0, 13.0), (-90.0, -180.0), (0.0, 180.0)], (91.0, 0.0)),
            ([13.0, 52.0, 13.0, 53.0], [(52.0, 13.0), (52.5, 13.0), (53.0, 13.0)], (52.5, 13.000_001)),
            ([180.0, 0.0, -180.0, 1.0], [(0.0, 180.0), (1.0, -180.0), (0.5, 180.0)], (0.5, 179.9)),
        ] {
            let [west, south, east, north] = area;
            let area = Area::in_box(west, south, east, north).expect("a box");
            for (latitude, longitude) in inside {
                assert!(area.contains(latitude, longitude), "{area:?} {latitude} {longitude}");
            }
            assert!(!area.contains(outside.0, outside.1), "{area:?}");
        }
        for [west, south, east, north] in
            [[0.0, 1.0, 0.0, 0.0], [-181.0, 0.0, 0.0, 1.0], [0.0, -91.0, 0.0, 0.0], [f64::NAN, 0.0, 0.0, 1.0]]
        {
            assert!(Area::in_box(west, south, east, north).is_err());
        }
        for radius in [0.0, -1.0, f64::NAN, f64::INFINITY, 20_020_000.0] {
            assert!(Area::circle(0.0, 0.0, radius).is_err(), "{radius}");
        }
    }
}
