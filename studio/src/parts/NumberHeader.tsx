/** The header of a column of numbers. */
export function NumberHeader({ children }: { children: React.ReactNode }) {
  return (
    <th scope="col" className="number">
      {children}
    </th>
  );
}
