// What Relay's compiler reads; the app imports what it makes of this (`__generated__`), so it needs no Babel.
import { graphql } from "relay-runtime";

graphql`
  query documentsFormsQuery($first: Int!, $after: String) {
    forms(first: $first, after: $after) @connection(key: "documents_forms") {
      edges {
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

graphql`
  mutation documentsRenameMutation($id: ID!, $title: String!) {
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

graphql`
  mutation documentsSubmitMutation($input: CreateSubmissionsInput!) {
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

graphql`
  subscription documentsSubmittedSubscription($formId: ID!) {
    submissionChanged(formId: $formId) {
      id
      form {
        id
        submissionCount
      }
    }
  }
`;
