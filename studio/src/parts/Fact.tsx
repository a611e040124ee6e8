/** A figure with its name, in a list of them. */
export function Fact({ name, value }: { name: string; value: React.ReactNode }) {
  return (
    <div className="fact">
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
