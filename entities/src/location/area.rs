//! Areas on the globe as conditions: boxes (also across the 180th meridian) and circles (great-circle distance on a
//! sphere of the mean radius; within 0.6 % of the ellipsoid). The same arithmetic runs on both databases.

use serde::Serialize;

use crate::sql::Sql;

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

    /// ` AND …` over `t.latitude` and `t.longitude`.
    pub(crate) fn push(&self, sql: &mut Sql) {
        let (west, south, east, north) = self.bounds();
        sql.push(" AND t.latitude BETWEEN ").bind(south).push(" AND ").bind(north);
        let crosses = west > east;
        sql.push(" AND (t.longitude >= ").bind(west).push(if crosses { " OR " } else { " AND " });
        sql.push("t.longitude <= ").bind(east).push(")");
        if let Self::Circle { latitude, longitude, radius } = *self {
            push_distance(sql, latitude, longitude, radius);
        }
    }

    /// The same, also in the words of the spatial index on `point(longitude, latitude)` where there is one.
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
            sql.push("point(t.longitude, t.latitude) <@ box(point(").bind(*west).push(", ").bind(south);
            sql.push("), point(").bind(*east).push(", ").bind(north).push("))");
        }
        sql.push(")");
    }
}

/// The haversine formula, rearranged so that everything that does not depend on the row is computed here.
fn push_distance(sql: &mut Sql, latitude: f64, longitude: f64, radius: f64) {
    sql.push(" AND power(sin(radians(t.latitude - ").bind(latitude).push(") / 2), 2) + ");
    sql.bind(latitude.to_radians().cos())
        .push(" * cos(radians(t.latitude)) * power(sin(radians(t.longitude - ");
    sql.bind(longitude).push(") / 2), 2) <= ").bind(limit(radius));
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
