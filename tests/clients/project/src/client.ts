// The operations of a small client, written once: Apollo's, Relay's and codegen's compilers all read this file. Relay
// wants each name to begin with the file's.
import { graphql } from "./generated";

export const person = graphql`
  fragment client_person on User {
    id
    displayName
    role
  }
`;

export const people = graphql`
  query clientPeopleQuery($first: Int = 5) {
    users(first: $first) {
      nodes {
        ...client_person
        sessions(first: 2) {
          totalCount
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
`;

export const me = graphql`
  query clientMeQuery {
    me {
      ...client_person
      email
    }
  }
`;

export const forms = graphql`
  query clientFormsQuery($status: FormStatus!) {
    forms(first: 3, filter: { statuses: [$status] }) {
      totalCount
      nodes {
        id
        title
        owner {
          ...client_person
        }
      }
    }
  }
`;
