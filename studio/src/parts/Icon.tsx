const PATHS: Record<string, string> = {
  check: "M3.5 8.5l3 3 6-7",
  cross: "M4 4l8 8M12 4l-8 8",
  tilde: "M3 9c1.5-3 3.5-3 5-1s3.500 2 5-1",
  withheld: "M8 2.500a5.500 5.500 0 1 0 0 11a5.500 5.500 0 1 0 0-11M4.200 4.200l7.600 7.600",
  question: "M5.500 6a2.500 2.500 0 1 1 3.600 2.200c-.8.400-1.100.9-1.100 1.800M8 12.600v.1",
  dot: "M8 5.200a2.800 2.800 0 1 0 0 5.600a2.800 2.800 0 1 0 0-5.600",
  ring: "M8 4a4 4 0 1 0 0 8a4 4 0 1 0 0-8",
  pause: "M6 4v8M10 4v8",
  stop: "M4.500 4.500h7v7h-7z",
  pen: "M3.500 12.500l.7-2.800 6.300-6.300 2.100 2.100-6.300 6.300z",
  turn: "M4 6h5a3 3 0 0 1 0 6H7M6.500 3.500L4 6l2.500 2.500",
  minus: "M4 8h8",
  agent: "M3 5.500h10v7H3zM8 5.500V3M6 8.500v1M10 8.500v1",
  tool: "M9.500 3a3 3 0 0 0-2.800 4L3 10.700 5.300 13 9 9.300A3 3 0 0 0 12.800 5.500L11 7.300 8.700 5z",
  map: "M3 4.500h10M3 8h10M3 11.500h10",
  loop: "M12.500 6.500A5 5 0 1 0 13 9M12.800 3v3.700H9.200",
  plan: "M3.500 3.500h3v3h-3zM9.500 9.500h3v3h-3zM6.500 5H11v4.500M5 6.500v5h4.500",
  call: "M3 4h10v8H3zM6 4v8",
  branch: "M4 3v10M4 8h3.500c2.500 0 2.500-4 5-4M4 8h3.500c2.500 0 2.500 4 5 4",
  chevron: "M6 4l4 4-4 4",
  close: "M4 4l8 8M12 4l-8 8",
  sun: "M8 5.500a2.500 2.500 0 1 0 0 5a2.500 2.500 0 1 0 0-5M8 1.800v1.400M8 12.800v1.400M1.800 8h1.400M12.800 8h1.400M3.600 3.600l1 1M11.400 11.400l1 1M12.400 3.600l-1 1M4.600 11.400l-1 1",
  moon: "M12.800 9.800A5.300 5.300 0 0 1 6.200 3.200a5.300 5.300 0 1 0 6.600 6.600z",
  copy: "M5.500 5.500h7v7h-7zM3.500 10.500v-7h7",
  play: "M5 3.500l7 4.500-7 4.500z",
  shield: "M8 2l5 2v4c0 3-2.200 5-5 6-2.800-1-5-3-5-6V4z",
  link: "M6.500 9.500l3-3M7 5l1.500-1.500a2.500 2.500 0 0 1 4 4L11 9M9 11l-1.500 1.500a2.500 2.500 0 0 1-4-4L5 7",
  search: "M7 3a4 4 0 1 0 0 8a4 4 0 1 0 0-8M10 10l3 3",
};

/** A drawing beside a word; it says nothing on its own. */
export function Icon({ name, size = 16 }: { name: string; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name] ?? PATHS.dot} fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round" strokeLinejoin="round" />
    </svg>
  );
}
