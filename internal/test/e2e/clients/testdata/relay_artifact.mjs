// Builds what relay-compiler generates for an operation without fragments, so that the
// tests need no build step.
import { Kind, TypeInfo, getNamedType, isAbstractType, isLeafType, isListType, getNullableType, parse, valueFromASTUntyped, visit, visitWithTypeInfo } from "graphql";

const argument = ({ name, value }) =>
  value.kind === Kind.VARIABLE
    ? { kind: "Variable", name: name.value, variableName: value.name.value }
    : { kind: "Literal", name: name.value, value: valueFromASTUntyped(value) };

export const artifact = (schema, text) => {
  const types = new TypeInfo(schema);
  const operation = visit(parse(text), visitWithTypeInfo(types, {
    Field: {
      leave: ({ alias, name, arguments: args, selectionSet }) => {
        const type = types.getType();
        const field = {
          alias: alias?.value ?? null, args: args.length ? args.map(argument) : null, name: name.value, storageKey: null,
        };
        if (isLeafType(getNamedType(type))) return { kind: "ScalarField", ...field };
        return {
          kind: "LinkedField", ...field, concreteType: isAbstractType(getNamedType(type)) ? null : getNamedType(type).name,
          plural: isListType(getNullableType(type)), selections: selectionSet,
        };
      },
    },
    SelectionSet: { leave: ({ selections }) => selections },
  })).definitions[0];
  const name = operation.name.value;
  const argumentDefinitions = operation.variableDefinitions.map(({ variable }) => ({ kind: "LocalArgument", name: variable.name.value, defaultValue: null }));
  const type = { query: "Query", mutation: "Mutation", subscription: "Subscription" }[operation.operation];
  return {
    kind: "Request",
    fragment: { kind: "Fragment", name, type, abstractKey: null, metadata: null, argumentDefinitions, selections: operation.selectionSet },
    operation: { kind: "Operation", name, argumentDefinitions, selections: operation.selectionSet },
    params: { id: null, cacheID: name, metadata: {}, name, operationKind: operation.operation, text },
  };
};
