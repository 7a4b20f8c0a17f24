// The operations that are asked through a gateway and directly. `same`: both can answer, alike. Ids come from the
// server that is tested.

export const ABSENT = "00000000-0000-7000-8000-00000000dead";

/** Ids of what the account of the token sees. */
export const IDS = {
  query: `{
    users(first: 100) { nodes { id displayName } }
    forms(first: 20) { nodes { id owner { id } } }
    latestLocations(first: 1) { nodes { id } }
  }`,
};

/** @param {{users: {id: string}[], forms: {id: string}[], location: string}} ids */
export function same({ users, forms, location }) {
  return {
    "who asks": { query: "{ me { id email role displayName } }" },
    "people with their sessions and forms": {
      query: `query People($first: Int!) {
        users(first: $first, orderBy: { field: DISPLAY_NAME, direction: ASC }) {
          totalCount
          pageInfo { hasNextPage endCursor }
          edges {
            cursor
            node {
              id email role
              sessions(first: 3) { totalCount nodes { id userAgent isActive endReason user { id } } }
              forms(first: 2) { nodes { id title status submissionCount currentVersion { number hash } } }
            }
          }
        }
      }`,
      variables: { first: 20 },
    },
    "a filtered list": {
      query: `query Some($filter: UserFilter) { users(filter: $filter) { nodes { displayName role isActive } } }`,
      variables: { filter: { roles: ["ADMIN", "EDITOR"], isActive: true } },
    },
    "objects of three types by id, and one that is not there": {
      query: `query Objects($ids: [ID!]!) {
        nodes(ids: $ids) {
          __typename
          id
          ... on User { displayName lastLocation { timestamp latitude longitude } }
          ... on Form { title owner { displayName } }
          ... on Location { timestamp user { displayName } }
        }
      }`,
      variables: { ids: [users[0].id, forms[0].id, ABSENT, location, users[0].id] },
    },
    "what was done, to whatever it was done": {
      query: `{
        activityLogs(first: 20) {
          nodes {
            actionType metadata user { displayName }
            subject { __typename ... on Form { title } ... on Submission { form { title } } ... on User { email } }
          }
        }
      }`,
    },
    "places in a box": {
      query: `query Places($area: AreaInput) {
        latestLocations(first: 10, area: $area) { nodes { timestamp latitude longitude accuracy user { displayName } } }
      }`,
      variables: { area: { box: { west: -180, south: -90, east: 180, north: 90 } } },
    },
    "answers to forms": {
      query: `query Answers($first: Int!) {
        forms(first: $first) {
          nodes { title submissions(first: 5) { totalCount nodes { id data submittedBy: user { displayName } } } }
        }
      }`,
      variables: { first: 10 },
    },
    "an account that is not there": {
      query: "query Account($id: ID!) { user(id: $id) { id displayName } }",
      variables: { id: ABSENT },
    },
    "a page that is too long": {
      query: "{ users(first: 101) { nodes { id } } }",
      codes: ["BAD_USER_INPUT"],
    },
    "an id that is none, beside a field that is answered": {
      query: '{ me { id } user(id: "x") { id } }',
      codes: ["BAD_USER_INPUT"],
    },
    "a field that is not there": {
      query: "{ nope }",
      codes: ["GRAPHQL_VALIDATION_FAILED"],
    },
  };
}
