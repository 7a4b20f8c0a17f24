// The operations of this app. Apollo's tool reads them here and makes the manifest that the server publishes.
import { gql } from "@apollo/client";

export const FORMS = gql`
  query Forms($first: Int!, $after: String) {
    forms(first: $first, after: $after) {
      edges {
        cursor
        node {
          id
          title
          submissionCount
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
`;

export const RENAME = gql`
  mutation Rename($id: ID!, $title: String!) {
    updateForm(input: { id: $id, title: $title }) {
      form {
        id
        title
      }
      userErrors {
        message
      }
    }
  }
`;

export const SUBMIT = gql`
  mutation Submit($input: CreateSubmissionsInput!) {
    createSubmissions(input: $input) {
      results {
        submission {
          id
        }
        userErrors {
          code
          message
        }
      }
    }
  }
`;

export const SUBMITTED = gql`
  subscription Submitted($formId: ID!) {
    submissionChanged(formId: $formId) {
      id
      form {
        id
        submissionCount
      }
    }
  }
`;
